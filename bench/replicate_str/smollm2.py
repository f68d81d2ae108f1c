"""SmolLM2-135M with LoRA on dialogues: SFT, STR with the paper's ranker, STR with ours, through `STRTrainer`.

One seed's fine-tuning and samples are made once and shared: each ranker continues a copy of that run directory, so
two rows of a seed differ by the ranker alone. Answers stay in the work folder (the dialogues are not screened).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SYSTEM_PROMPT = "Chat like a friendly person."
RANKERS: dict[str, dict[str, Any]] = {
    "str_noise": {"teleport": "none", "cluster": "str", "noise_rate": 0.24},
    "str_ours": {"teleport": "demonstration", "cluster": "ball_hall", "noise_rate": 0.24},
}
METHODS = ("sft", *RANKERS)


@dataclass(frozen=True)
class Sizes:
    """Of one short run; the demo's, but for the evaluation."""

    train_rows: int = 4000
    sft_examples: int = 512
    sft_learning_rate: float = 4e-4
    sample_prompts: int = 160
    samples_per_prompt: int = 8
    pairs_per_prompt: int = 3
    reward_learning_rate: float = 2e-4
    ppo_episodes: int = 320
    ppo_learning_rate: float = 3e-4
    kl_coef: float = 0.1
    missing_eos_penalty: float = 0.02
    completion_tokens: int = 32
    eval_prompts: int = 1100


def config(folder: Path, seed: int, sizes: Sizes, **changes: Any) -> Any:
    """`STRConfig` of one run directory."""
    from rlsft import STRConfig

    return STRConfig(
        output_dir=str(folder), seed=seed, encoder="minilm", dtype="bfloat16", attn_implementation="eager",
        use_peft=True, lora_r=16, lora_alpha=32, lora_dropout=0.0,
        lora_target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], max_length=96, truncate_prompt=True,
        max_completion_length=sizes.completion_tokens, system_prompt=SYSTEM_PROMPT, per_device_train_batch_size=16,
        logging_steps=2, show_progress=False, use_cpu=True,
        sft_max_examples=sizes.sft_examples, sft_learning_rate=sizes.sft_learning_rate,
        sample_prompts=sizes.sample_prompts, samples_per_prompt=sizes.samples_per_prompt,
        max_pairs_per_prompt=sizes.pairs_per_prompt, reward_learning_rate=sizes.reward_learning_rate,
        ppo_episodes=sizes.ppo_episodes, ppo_batch_size=64, ppo_learning_rate=sizes.ppo_learning_rate, ppo_epochs=2,
        ppo_mini_batches=2, kl_coef=sizes.kl_coef, missing_eos_penalty=sizes.missing_eos_penalty,
        eval_prompts=96, **changes,
    )  # fmt: skip


def policies(seed: int, sizes: Sizes, work: Path, methods: list[str]) -> Iterator[tuple[str, Path]]:
    """Trains what is missing; yields each method with the folder of its policy as soon as it stands."""
    from rlsft import STRTrainer
    from rlsft.data import assets, chitchat

    model = str(assets.smollm2("bfloat16"))
    rows = chitchat.load("train").select(range(sizes.train_rows))
    held_out = chitchat.load("validation").select(range(400))
    base = work / "base"
    STRTrainer(model, config(base, seed, sizes, stop_after="samples"), rows, held_out).train()
    if "sft" in methods:
        yield "sft", base / "sft" / "model"
    for name in (name for name in methods if name != "sft"):
        folder = work / name
        if not folder.exists():
            partial = work / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(base, partial)
            partial.rename(folder)
        STRTrainer(model, config(folder, seed, sizes, stop_after="ppo", **RANKERS[name]), rows, held_out).train()
        yield name, folder / "ppo" / "model"


def answers_of(policy: Path, prompts: list[dict[str, Any]], sizes: Sizes, file: Path, name: str) -> Path:
    """One drawn answer to each held-out prompt, alike for all methods; written once."""
    from rlsft.evaluation import sample_answers, write_generations
    from rlsft.models import load_causal_lm, load_tokenizer
    from rlsft.rollouts import SamplingParams, TransformersEngine

    if file.exists():
        return file
    tokenizer = load_tokenizer(policy)
    engine = TransformersEngine(
        load_causal_lm(policy, dtype="bfloat16", attn_implementation="eager"), tokenizer, batch_size=64
    )
    drawn = sample_answers(
        engine, tokenizer, [row["prompt"] for row in prompts], model=name,
        references=[row["references"] for row in prompts],
        sampling=SamplingParams(temperature=0.8, top_p=0.95, max_new_tokens=sizes.completion_tokens, seed=0),
        max_prompt_length=96 - sizes.completion_tokens, system_prompt=SYSTEM_PROMPT, truncate_prompt=True,
    )  # fmt: skip
    return write_generations(file, drawn.generations)


def held_out_prompts(count: int) -> list[dict[str, Any]]:
    """Distinct test prompts, the same for every seed, each with every human answer to it."""
    import random

    from rlsft.data import chitchat

    found: dict[str, list[str]] = {}
    for row in chitchat.load("test"):
        answers = found.setdefault(row["prompt"], [])
        if row["completion"] not in answers:
            answers.append(row["completion"])
    rows = [{"prompt": prompt, "references": answers} for prompt, answers in found.items()]
    return [rows[i] for i in sorted(random.Random(0).sample(range(len(rows)), count))]


def generate(seed: int, sizes: Sizes, work: Path, methods: list[str]) -> Iterator[tuple[str, float, list[Any]]]:
    """Each method with its seconds and its answers, as soon as they are drawn."""
    import time

    from rlsft.evaluation import read_generations

    folder = folder_of(seed, sizes, work)
    prompts = held_out_prompts(sizes.eval_prompts)
    begun = time.monotonic()
    for name, policy in policies(seed, sizes, folder, methods):
        file = answers_of(policy, prompts, sizes, folder / f"answers_{name}.jsonl", name)
        yield name, time.monotonic() - begun, read_generations(file)
        begun = time.monotonic()


def reward_facts(seed: int, sizes: Sizes, work: Path, method: str) -> dict[str, float]:
    """Held-out accuracy of the reward model of a ranker; nothing for fine-tuning."""
    import json

    file = folder_of(seed, sizes, work) / method / "reward" / "done.json"
    if not file.exists():
        return {}
    facts = json.loads(file.read_text())
    return {"pair_accuracy": facts["eval_accuracy"], "held_out_pairs": facts["num_eval_pairs"]}


def folder_of(seed: int, sizes: Sizes, work: Path) -> Path:
    """Of the run directories of a seed."""
    return work / f"seed_{seed}_{fingerprint(sizes)}"


def fingerprint(sizes: Sizes) -> str:
    """Short hash of the settings, so that other settings get another folder."""
    import hashlib
    import json

    return hashlib.sha256(json.dumps(asdict(sizes), sort_keys=True).encode()).hexdigest()[:8]
