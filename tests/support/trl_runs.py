"""TRL's five trainers on tiny models, a few steps each, with everything they log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset

from tests.support.models import tiny_model, tiny_tokenizer

STEPS = 3
# of the clock or of the process, not of the training
UNEQUAL = ("time", "runtime", "per_second", "flos", "step_time")


def plain_tokenizer() -> Any:
    """The tiny tokenizer without its chat template, so that texts stay as they are."""
    tokenizer = tiny_tokenizer().__class__(
        tokenizer_object=tiny_tokenizer().backend_tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )  # fmt: skip
    return tokenizer


def saved_model(folder: Path, family: str = "llama", **changes: Any) -> str:
    """A tiny model and its tokenizer on the disk: RLOO loads its reference from the model's name."""
    tiny_model(family, **changes).save_pretrained(folder)
    plain_tokenizer().save_pretrained(folder)
    return str(folder)


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """What all five share; large plain steps, so that a wrong gradient shows in the next loss and the weights."""
    return {
        "output_dir": str(folder), "per_device_train_batch_size": 4, "max_steps": STEPS, "learning_rate": 0.1,
        "optim": "sgd", "logging_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True, "bf16": False,
        "seed": 0, "disable_tqdm": True, "lr_scheduler_type": "constant", "gradient_checkpointing": False, **changes,
    }  # fmt: skip


def rows(count: int = 16) -> list[dict[str, str]]:
    """Prompts and answers whose lengths differ."""
    return [
        {
            "prompt": f"What about number {i}?" + " And then?" * (i % 3),
            "completion": " I like it" + ", really" * (i % 4) + ".",
        }
        for i in range(count)
    ]


def sft(model: Any, folder: Path, **changes: Any) -> Any:
    from trl import SFTConfig, SFTTrainer

    own = _own(changes)
    return SFTTrainer(
        model, SFTConfig(**settings(folder, **changes)), train_dataset=Dataset.from_list(rows()),
        processing_class=plain_tokenizer(), **own,
    )  # fmt: skip


def dpo(model: Any, folder: Path, **changes: Any) -> Any:
    from trl import DPOConfig, DPOTrainer

    own = _own(changes)
    data = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": " No" + "!" * (i % 5)}
        for i, row in enumerate(rows())
    ]
    return DPOTrainer(
        model, args=DPOConfig(**settings(folder, **changes)), train_dataset=Dataset.from_list(data),
        processing_class=plain_tokenizer(), **own,
    )  # fmt: skip


def kto(model: Any, folder: Path, **changes: Any) -> Any:
    from trl import KTOConfig, KTOTrainer

    own = _own(changes)
    data = [{**row, "label": i % 2 == 0} for i, row in enumerate(rows())]
    return KTOTrainer(
        model, args=KTOConfig(**settings(folder, **changes)), train_dataset=Dataset.from_list(data),
        processing_class=plain_tokenizer(), **own,
    )  # fmt: skip


def grpo(model: Any, folder: Path, **changes: Any) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    own = {"reward_funcs": length_reward, **_own(changes)}
    options = {"max_completion_length": 8, "num_generations": 2, "temperature": 0.7, **changes}
    return GRPOTrainer(
        model, args=GRPOConfig(**settings(folder, **options)), train_dataset=_prompts(),
        processing_class=plain_tokenizer(), **own,
    )  # fmt: skip


def rloo(model: Any, folder: Path, **changes: Any) -> Any:
    from trl import RLOOConfig, RLOOTrainer

    own = {"reward_funcs": length_reward, **_own(changes)}
    options = {"max_completion_length": 8, "num_generations": 2, "temperature": 0.7, "beta": 0.05, **changes}
    return RLOOTrainer(
        model, args=RLOOConfig(**settings(folder, **options)), train_dataset=_prompts(),
        processing_class=plain_tokenizer(), **own,
    )  # fmt: skip


RUNS: dict[str, Callable[..., Any]] = {"sft": sft, "dpo": dpo, "kto": kto, "grpo": grpo, "rloo": rloo}


def length_reward(completions: list[str], **_columns: Any) -> list[float]:
    """Longer words are better: varies between answers, so that advantages are not all zero."""
    return [sum(map(ord, text)) % 97 / 97 for text in completions]


def history(trainer: Any) -> list[dict[str, float]]:
    """Train; every number that was logged but for those of the clock."""
    trainer.train()
    return [
        {key: value for key, value in row.items() if not any(word in key for word in UNEQUAL)}
        for row in trainer.state.log_history
        if "loss" in row
    ]


def _prompts() -> Dataset:
    return Dataset.from_list([{"prompt": row["prompt"]} for row in rows()])


def _own(changes: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the trainer, taken out of those of its config."""
    names = ("peft_config", "ref_model", "reward_funcs", "callbacks", "compute_loss_func")
    return {name: changes.pop(name) for name in names if name in changes}
