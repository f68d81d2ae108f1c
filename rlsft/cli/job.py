"""What every training command needs besides its config: a model, data, and how their names map to ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlsft.errors import ConfigError

# words that stand for what the demo packages bring; everything else is a path
MODEL_ALIASES = ("smollm2",)
DATA_ALIASES = ("chitchat",)


@dataclass
class JobArguments:
    """Model and data of a training command."""

    model: str | None = field(
        default=None, metadata={"help": "folder of a causal LM, or smollm2 (the demo package's model)"}
    )
    train_data: str | None = field(
        default=None,
        metadata={
            "help": "JSONL, JSON, CSV or parquet file, a datasets folder, or chitchat (the demo package's dialogues)"
        },
    )
    eval_data: str | None = field(
        default=None, metadata={"help": "held-out data in the same formats; chitchat brings its own split"}
    )
    column_map: str | None = field(
        default=None, metadata={"help": "our=their column names, such as prompt=question,completion=answer"}
    )
    limit: int | None = field(default=None, metadata={"help": "use the first so many training rows"})
    eval_limit: int | None = field(default=None, metadata={"help": "use the first so many held-out rows"})
    pad_token: str | None = field(
        default=None,
        metadata={"help": "text of the padding token where the tokenizer has none (GPT-2); its end token is safe"},
    )
    reward_model: str | None = field(
        default=None,
        metadata={
            "help": "ppo: folder of a reward model or of exported token rewards, or module:function for your own reward"
        },
    )

    def require(self, *names: str) -> None:
        """Raise unless these fields are set."""
        for name in names:
            if getattr(self, name) is None:
                raise ConfigError(f"--{name} is required: {self.__dataclass_fields__[name].metadata['help']}")


def resolve_model(name: str, dtype: str = "bfloat16") -> str:
    """Folder of a model: an alias of the demo packages, a run directory or a plain model folder."""
    if name in MODEL_ALIASES and not Path(name).exists():
        from rlsft.data import assets

        return str(assets.smollm2(dtype if dtype in {"bfloat16", "float32"} else "bfloat16"))
    if not Path(name).exists():
        raise ConfigError(
            f"model {name!r}: no such folder. Expected a local model folder (with config.json) "
            f"or one of {list(MODEL_ALIASES)}"
        )
    return name


def load_policy(folder: str, dtype: str) -> Any:
    """A causal LM for use: a plain folder, or a LoRA adapter on the base model that it names."""
    from rlsft import models

    return models.load_policy(folder, dtype=dtype)


def load_data(name: str, split: Literal["train", "test"], job: JobArguments) -> Any:
    """Rows of a file, a folder or an alias; `split` matters for aliases only."""
    from rlsft.data import chitchat, detect_format, load_examples, parse_column_map

    limit = job.limit if split == "train" else job.eval_limit
    if name in DATA_ALIASES and not Path(name).exists():
        dataset = chitchat.load(split)
        return dataset.select(range(min(limit, len(dataset)))) if limit else dataset
    columns = parse_column_map(job.column_map) if job.column_map else None
    dataset = load_examples(name, column_map=columns, limit=limit)
    detect_format(dataset.column_names)  # unknown columns are named here, with the column_map that would mend it
    return dataset


def train_and_eval(job: JobArguments) -> tuple[Any, Any]:
    """The training rows and the held-out ones (None when there are none)."""
    job.require("train_data")
    train = load_data(str(job.train_data), "train", job)
    name = job.eval_data or (job.train_data if job.train_data in DATA_ALIASES else None)
    return train, load_data(name, "test", job) if name else None
