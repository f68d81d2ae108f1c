"""The methods that are compared, each from the same fine-tuned policy with a budget of optimizer steps.

`sft_steps` takes as many optimizer steps as the others, `sft_tokens` trains on as many tokens: a pair holds two
answers, so it takes twice the steps. `spin` is one IRFT round with all prompts, T = 1; `irft_T` draws anew for each of
T shards of the data. `dpo` is TRL's DPOTrainer on the very pairs that `spin` drew, a control by other people's code.
`rft` and `rft_ppo` learn an explicit reward in two rounds and take the budget's steps with the policy; the steps of
the reward come on top.
"""

from __future__ import annotations

import gc
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.replicate_irl.task import Method, Rows, Task

HELD_OUT_OF_REWARD = 0.05


def common(task: Task, name: str, steps: int, learning_rate: float) -> dict[str, Any]:
    """Settings that every trainer takes."""
    return {
        "output_dir": str(task.folder / name), "per_device_train_batch_size": task.budget.batch, "max_steps": steps,
        "learning_rate": learning_rate, "lr_scheduler_type": "cosine", "warmup_steps": min(10, steps // 5),
        "logging_steps": 50, "save_strategy": "no", "use_cpu": True, "seed": task.seed, "max_length": task.max_length,
        "show_progress": False, **task.adapter,
    }  # fmt: skip


def fine_tuned(task: Task) -> Task:
    """The task with the common fine-tuning done, adapters merged: what every method starts from."""
    policy = sft(task, steps=task.budget.warm_up_steps, name="warm_up")
    return replace(task, policy=policy.merge_and_unload() if task.adapter else policy)


def sft(task: Task, *, steps: int, name: str) -> Any:
    """More fine-tuning on the demonstrations."""
    from rlsft import SFTConfig, SFTTrainer

    args = SFTConfig(**common(task, name, steps, task.budget.sft_learning_rate))
    trainer = SFTTrainer(task.copy(), args, task.rows, processing_class=task.tokenizer, callbacks=list(task.callbacks))
    trainer.train()
    return trainer.model


def irft(task: Task, *, name: str, rounds: int, refresh: str) -> Any:
    """IRFT with `steps` optimizer steps over all its rounds."""
    from rlsft import IRFTConfig, IRFTTrainer

    budget = task.budget
    args = IRFTConfig(
        **common(task, name, budget.steps, budget.pair_learning_rate), rounds=rounds, refresh=refresh,
        steps_per_round=budget.steps // rounds, beta=budget.beta, sft_coef=budget.sft_coef,
        max_completion_length=task.completion_tokens, generation_batch_size=256,
    )  # fmt: skip
    trainer = IRFTTrainer(task.copy(), args, task.rows, processing_class=task.tokenizer, callbacks=list(task.callbacks))
    trainer.train()
    return trainer.model


def spin(task: Task) -> Any:
    """Answers to all prompts once, the start as reference."""
    return irft(task, name="spin", rounds=1, refresh="full")


def irft_rounds(rounds: int) -> Method:
    """T rounds over T shards of the data; K follows from the budget."""
    return lambda task: irft(task, name=f"irft_{rounds}", rounds=rounds, refresh="shards")


def irft_kept(task: Task) -> Any:
    """IRFT of two rounds with an SFT term in its loss, which keeps the demonstrations' log-probability from falling."""
    budget = task.budget
    changed = replace(budget, sft_coef=budget.kept_sft_coef, pair_learning_rate=budget.kept_learning_rate)
    return irft(replace(task, budget=changed), name="irft_2_sft", rounds=2, refresh="shards")


def dpo(task: Task) -> Any:
    """TRL's trainer on the pairs that `spin` drew; they are drawn here if it did not run."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    drawn = task.folder / "spin" / "negatives" / "round_00.jsonl"
    if not drawn.exists():
        spin(task)
    settings = common(task, "dpo", task.budget.steps, task.budget.pair_learning_rate)
    for ours in ("show_progress", *task.adapter):
        settings.pop(ours)
    trainer = DPOTrainer(
        model=task.copy(), ref_model=task.copy(), processing_class=task.tokenizer, callbacks=list(task.callbacks),
        args=DPOConfig(
            **settings, beta=task.budget.beta, report_to=[], bf16=False, gradient_checkpointing=False,
            disable_dropout=True, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(given_pairs(drawn, task.rows)),
    )  # fmt: skip
    trainer.train()
    return trainer.model


def given_pairs(drawn: Path, rows: Rows) -> Rows:
    """The demonstrations beside the drawn answers; an answer equal to its demonstration teaches nothing."""
    answers = [json.loads(line) for line in drawn.read_text().splitlines()[1:]]
    pairs = []
    for answer in answers:
        row = rows[answer["prompt_row"]]
        rejected = leading_space(row["completion"]) + answer["completion"].strip()
        if rejected != row["completion"]:
            pairs.append({"prompt": row["prompt"], "chosen": row["completion"], "rejected": rejected})
    return pairs


def leading_space(text: str) -> str:
    """A demonstration that begins with a space wants the same of what is compared with it."""
    return " " if text.startswith(" ") else ""


def rft(task: Task, *, name: str, policy_step: str) -> Any:
    """RFT of algorithm 1, as many optimizer steps of the policy as the other methods take."""
    from rlsft import RFTConfig, RFTTrainer
    from rlsft.models import load_causal_lm

    start = task.folder / "start"
    if not start.exists():
        task.policy.save_pretrained(start)
        task.tokenizer.save_pretrained(start)
    args = RFTConfig(**rft_settings(task, name, policy_step))
    trainer = RFTTrainer(str(start), args, task.rows, task.held_out[:8], processing_class=task.tokenizer)
    trainer.train()
    if args.use_peft:
        policy = trainer.current_policy(args.rounds + 1)
    else:
        policy = load_causal_lm(trainer.policy_folder(args.rounds), attn_implementation="eager")
    del trainer
    gc.collect()
    return policy


def rft_settings(task: Task, name: str, policy_step: str) -> dict[str, Any]:
    """`RFTConfig` fields: every round takes its share of the steps, and as many prompts as these need."""
    budget = task.budget
    settings = common(task, name, -1, budget.sft_learning_rate)
    for stages in ("max_steps", "learning_rate", "warmup_steps", "save_strategy"):
        settings.pop(stages)
    steps = budget.steps // budget.rft_rounds
    weighted = policy_step == "weighted_sft"
    most = int(len(task.rows) * (1 - HELD_OUT_OF_REWARD)) // budget.rft_rounds
    answered = steps * budget.batch / (1 + budget.rft_samples)  # prompts that one pass would take
    passes = math.ceil(answered / most)
    prompts = round(answered / passes)
    by_step: dict[str, Any] = {"policy_epochs": passes, "policy_learning_rate": budget.rft_learning_rate}
    if not weighted:  # one optimizer step a batch of answers
        by_step = {
            "policy_epochs": 1, "policy_batch_size": 4 * budget.batch, "policy_mini_batches": 4,
            "policy_episodes": steps * budget.batch, "policy_learning_rate": budget.rft_ppo_learning_rate,
        }  # fmt: skip
    return settings | by_step | {
        "skip_sft": True, "rounds": budget.rft_rounds, "sample_prompts": prompts,
        "samples_per_prompt": budget.rft_samples, "sample_batch_size": 256, "policy_step": policy_step,
        "kl_coef": budget.rft_beta, "reward_learning_rate": budget.reward_learning_rate,
        "reward_num_train_epochs": budget.reward_epochs, "reward_eval_fraction": HELD_OUT_OF_REWARD,
        "max_completion_length": task.completion_tokens, "attn_implementation": "eager",
        "stop_after": f"round_{budget.rft_rounds:02d}/policy",
    }  # fmt: skip


METHODS: dict[str, Method] = {
    "sft_steps": lambda task: sft(task, steps=task.budget.steps, name="sft_steps"),
    "sft_tokens": lambda task: sft(task, steps=2 * task.budget.steps, name="sft_tokens"),
    "spin": spin,
    "irft_2": irft_rounds(2),
    "irft_5": irft_rounds(5),
    "irft_2_sft": irft_kept,
    "dpo": dpo,
    "rft": lambda task: rft(task, name="rft", policy_step="weighted_sft"),
    "rft_ppo": lambda task: rft(task, name="rft_ppo", policy_step="ppo"),
}
