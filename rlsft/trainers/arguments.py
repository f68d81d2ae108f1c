"""What every trainer's config shares: TRL's names on `transformers.TrainingArguments`, checked when built."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from rlsft.errors import ConfigError

DTYPES = ("auto", "float32", "bfloat16", "float16")
LORA_EVERYWHERE = "all-linear"  # peft's own word for every linear layer but the head


@dataclass
class RlsftArguments(TrainingArguments):
    """Settings that SFT, reward and PPO training share, on top of `transformers.TrainingArguments`.

    Three defaults depend on the machine and are settled when the object is built: `gradient_checkpointing`
    and `bf16` are on where an accelerator is used (memory is the limit there) and off on the CPU, where
    recomputing every layer costs a quarter of the speed and saves memory that is not scarce.

    Raises:
        ConfigError: a value is out of range or two settings contradict each other; the message names the
            field.
    """

    logging_steps: float = field(
        default=10,
        metadata={"help": "Log every so many optimizer steps; below 1 it is a share of all steps."},
    )
    gradient_checkpointing: bool | None = field(
        default=None,
        metadata={
            "help": "Recompute activations in the backward pass: less memory, some 20 percent slower. "
            "Unset: on with an accelerator, off on the CPU."
        },
    )
    bf16: bool | None = field(
        default=None,
        metadata={
            "help": "bfloat16 mixed precision over float32 weights. Unset: on where the accelerator supports it."
        },
    )
    remove_unused_columns: bool = field(
        default=False,
        metadata={"help": "Drop dataset columns that the model's forward does not name. Leave it off."},
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="float32",
        metadata={
            "help": "Type of the weights when the model is given as a folder. `auto` keeps the folder's own. "
            "Train bfloat16 weights through LoRA only: small updates round away in them."
        },
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "Attention code of transformers: eager, sdpa, flash_attention_2, … Unset: its own choice."},
    )
    disable_dropout: bool = field(
        default=False,
        metadata={"help": "Set every dropout of the model to 0, the functional ones (attention_dropout) included."},
    )
    max_length: int | None = field(
        default=1024,
        metadata={
            "help": "Longest sequence in tokens, prompt and answer together; longer ones are cut. Unset: the "
            "model's own context length."
        },
    )
    truncate_prompt: bool = field(
        default=False,
        metadata={"help": "Drop the oldest tokens of a prompt that leaves no room. Off: such a prompt is an error."},
    )
    system_prompt: str | None = field(
        default=None,
        metadata={
            "help": "System message for prompts that do not bring their own. Unset: what the template does "
            "by itself; empty: an empty one."
        },
    )
    dataset_num_proc: int | None = field(
        default=None, metadata={"help": "Processes that encode a dataset. Unset: this one alone."}
    )
    use_peft: bool = field(default=False, metadata={"help": "Train a LoRA adapter instead of all weights."})
    lora_r: int = field(default=16, metadata={"help": "Rank of the LoRA matrices."})
    lora_alpha: int = field(
        default=32, metadata={"help": "LoRA scale; the update is multiplied by lora_alpha / lora_r."}
    )
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout on the input of the LoRA matrices."})
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of the layers that get an adapter. Unset: all-linear, every linear layer but the head."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after so many evaluations without a better metric_for_best_model. Unset: never. "
            "Needs load_best_model_at_end."
        },
    )
    max_nonfinite_steps: int = field(
        default=3,
        metadata={
            "help": "A step whose gradient is NaN or infinite is skipped and counted; so many in a row are "
            "an error. 0: the first one is."
        },
    )
    keep_freed_memory: bool = field(
        default=True,
        metadata={
            "help": "Training on a CPU keeps freed memory for its next step instead of returning it to the system "
            "and clearing it anew (glibc only). Off: the allocator is left as it is."
        },
    )
    metrics_path: str | None = field(
        default=None,
        metadata={"help": "JSON-lines file for every logged row. Unset: metrics.jsonl in output_dir."},
    )
    show_progress: bool | None = field(
        default=None,
        metadata={
            "help": "Progress with the time left. Unset: a bar on a terminal, nothing otherwise; "
            "true without a terminal: one line a log."
        },
    )

    def __post_init__(self) -> None:
        self._check()
        on_accelerator = torch.cuda.is_available() and not self.use_cpu
        if self.bf16 is None:
            self.bf16 = on_accelerator and not self.fp16 and torch.cuda.is_bf16_supported()
        self._settle_checkpointing(on_accelerator)
        if not on_accelerator:
            self.dataloader_pin_memory = False
        super().__post_init__()
        if self.n_gpu > 1:
            raise ConfigError(
                f"{self.n_gpu} GPUs are visible to one process, which transformers serves by "
                "nn.DataParallel; rlsft does not support that. Start with torchrun or accelerate launch, or "
                "set CUDA_VISIBLE_DEVICES=0."
            )

    def _settle_checkpointing(self, on_accelerator: bool) -> None:
        """Write the decision under the name that this version of transformers reads, without its alias warning."""
        asked: dict[str, Any] = {
            "gradient_checkpointing": on_accelerator
            if self.gradient_checkpointing is None
            else self.gradient_checkpointing,
            "gradient_checkpointing_kwargs": getattr(self, "gradient_checkpointing_kwargs", None),
        }
        for old, value in asked.items():
            new = old.replace("gradient", "activation")
            if not hasattr(self, new):  # transformers before 5.23
                setattr(self, old, value)
            elif getattr(self, new) is None:
                setattr(self, new, value)  # with the new name set, transformers mirrors it in the old one

    def _check(self) -> None:
        one_of("dtype", self.dtype, DTYPES)
        at_least("max_length", self.max_length, 2, "a prompt token and an answer token", optional=True)
        at_least("lora_r", self.lora_r, 1, "a LoRA matrix has at least one column")
        at_least("lora_alpha", self.lora_alpha, 1, "it scales the LoRA update, and 0 would switch it off")
        between("lora_dropout", self.lora_dropout, 0.0, 1.0)
        at_least("early_stopping_patience", self.early_stopping_patience, 1, "0 would stop at once", optional=True)
        at_least("max_nonfinite_steps", self.max_nonfinite_steps, 0, "it is a count")
        if self.label_smoothing_factor:
            raise ConfigError(
                f"label_smoothing_factor must be 0, got {self.label_smoothing_factor!r}: the fused losses do "
                "not smooth labels. Remove the setting."
            )
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            raise ConfigError(
                "early_stopping_patience needs load_best_model_at_end=True (with eval_strategy and "
                "save_strategy set alike): stopping early without going back to the best checkpoint would "
                "keep the worst of the wait."
            )

    @property
    def shows_progress(self) -> bool:
        """Whether bars may be drawn: on a terminal unless switched off, or where they were asked for."""
        return sys.stderr.isatty() if self.show_progress is None else self.show_progress

    @property
    def metrics_file(self) -> Path:
        """Where the logged rows go."""
        return Path(self.metrics_path) if self.metrics_path else Path(self.output_dir) / "metrics.jsonl"

    def lora_config(self, task_type: Literal["CAUSAL_LM", "SEQ_CLS"]) -> Any:
        """A `peft.LoraConfig` from the LoRA fields, or None when `use_peft` is off.

        Raises:
            ConfigError: peft is not installed.
        """
        if not self.use_peft:
            return None
        try:
            from peft import LoraConfig
        except ImportError:
            raise ConfigError("use_peft=True needs the package peft: pip install 'rlsft[peft]'") from None
        targets: list[str] | str | None = self.lora_target_modules
        if not targets or list(targets) == [LORA_EVERYWHERE]:
            targets = LORA_EVERYWHERE
        return LoraConfig(
            task_type=task_type,
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=targets,
        )


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise a `ConfigError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def at_least(name: str, value: float | None, minimum: float, reason: str, *, optional: bool = False) -> None:
    """Raise a `ConfigError` unless `value >= minimum`; None passes where `optional`."""
    if value is None and optional:
        return
    if not _is_number(value) or not value >= minimum:  # type: ignore[operator]
        raise ConfigError(
            f"{name} must be {'unset or ' if optional else ''}at least {minimum}, got {value!r}: {reason}"
        )


def between(name: str, value: float | None, low: float, high: float, *, optional: bool = False) -> None:
    """Raise a `ConfigError` unless `low <= value <= high`; None passes where `optional`."""
    if value is None and optional:
        return
    if not _is_number(value) or not low <= value <= high:  # type: ignore[operator]
        raise ConfigError(f"{name} must be {'unset or ' if optional else ''}between {low} and {high}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
