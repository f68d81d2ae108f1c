"""The reward model: a sequence-classification backbone, scored at its last real token, and its folder."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlsft.errors import ConfigError, ModelError
from rlsft.models import add_lora, is_lora, merge_lora, resolve_dtype, unwrap
from rlsft.objectives import bounded_rewards
from rlsft.rewards.pooling import classifier_of, head_name, pooled_scores

SEQ_CLS = "SEQ_CLS"  # peft's word for a task with a classification head


class RewardModel(nn.Module):
    """One number for a prompt with an answer.

    The folder it saves is a plain `…ForSequenceClassification` one: `AutoModelForSequenceClassification`
    loads it and gives the same scores on unpadded input. A mean and a standard deviation of its scores may
    stand in the config (`reward_mean`, `reward_std`); they change nothing unless `normalized=True` is asked
    for. A `reward_bound` R there makes the score `R * sigmoid(head)`, as it was trained.

    Args:
        backbone: a sequence-classification model with one label, plain or with an adapter.

    Raises:
        ModelError: no such head, or more than one label.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        classifier_of(backbone)
        self.backbone = backbone

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        dtype: str | torch.dtype = "auto",
        attn_implementation: str | None = None,
        peft_config: Any = None,
        seed: int = 0,
    ) -> RewardModel:
        """Load a reward model, or start one from a causal LM or encoder folder with a new head.

        A new head is drawn from `N(0, 1/(H+1))` with its own `seed`, as in Stiennon et al. (arXiv
        2009.01325).

        Args:
            path: a folder of a sequence-classification model, of a causal LM, or of a reward adapter (peft).
            dtype: "auto" = that of the files, a name, or a torch dtype.
            attn_implementation: passed to transformers; None = its own choice.
            peft_config: adds an adapter to train; the head is trained with it.
            seed: of a new head.

        Raises:
            ModelError: no such folder, no fitting weights, or a classifier with several labels.
        """
        folder = _existing_folder(path)
        options: dict[str, Any] = {"dtype": resolve_dtype(dtype)}
        if attn_implementation is not None:
            options["attn_implementation"] = attn_implementation
        if (folder / "adapter_config.json").is_file():
            return cls(_load_adapter(folder, options, seed))
        backbone = _load_classifier(folder, options, seed)
        return cls(backbone if peft_config is None else add_lora(backbone, classification_config(peft_config)))

    @property
    def config(self) -> Any:
        """The config of the classification model, `reward_mean` and `reward_std` included."""
        return classifier_of(self.backbone).config

    def score(self, input_ids: Tensor, attention_mask: Tensor, *, normalized: bool = False) -> Tensor:
        """Rewards of a batch.

        Args:
            input_ids: [B, T] int64.
            attention_mask: [B, T], 1 or True = real token; padding on either side.
            normalized: `(score - reward_mean) / reward_std`.

        Returns:
            float32 [B], with gradient unless switched off by the caller.
        """
        scores = bounded_rewards(pooled_scores(self.backbone, input_ids, attention_mask), self.bound)
        return self.normalize(scores) if normalized else scores

    forward = score

    def normalize(self, scores: Tensor) -> Tensor:
        """`(scores - reward_mean) / reward_std`; unchanged while no normaliser is set."""
        mean, std = self.normalizer
        return (scores - mean) / std

    @property
    def normalizer(self) -> tuple[float, float]:
        """Mean and standard deviation as stored; (0, 1) while none is set."""
        config = self.config
        return float(getattr(config, "reward_mean", None) or 0.0), float(getattr(config, "reward_std", None) or 1.0)

    @property
    def bound(self) -> float | None:
        """R of scores in (0, R); None = the head's output is the score."""
        bound = getattr(self.config, "reward_bound", None)
        return None if bound is None else float(bound)

    def set_bound(self, bound: float | None) -> None:
        """Make the score `bound * sigmoid(head)` from now on, or the head's output where `bound` is None.

        Raises:
            ConfigError: not a finite number above 0.
        """
        if bound is not None and not 0 < bound < float("inf"):
            raise ConfigError(
                f"reward_bound must be unset or a finite number > 0, got {bound!r}: rewards lie in (0, R)"
            )
        self.config.reward_bound = None if bound is None else float(bound)

    def set_normalizer(self, mean: float, std: float) -> None:
        """Store the mean and standard deviation that scores have on typical answers; saved with the model.

        Raises:
            ConfigError: not finite, or a standard deviation that is not positive.
        """
        mean, std = float(mean), float(std)
        if not (torch.isfinite(torch.tensor([mean, std])).all() and std > 0):
            raise ConfigError(
                f"the normaliser needs a finite mean and a positive std, got mean={mean}, std={std}: a "
                "reward that is the same for every answer ranks nothing"
            )
        self.config.reward_mean, self.config.reward_std = mean, std

    def save_pretrained(self, path: str | os.PathLike[str], tokenizer: Any = None) -> Path:
        """Write a plain model folder, with its tokenizer where one is given; the model itself stays as it is.

        An adapter is merged into the weights of the written copy only.
        """
        backbone: Any = unwrap(self.backbone)
        if is_lora(backbone):
            backbone = merge_lora(copy.deepcopy(backbone))
        with safe_pad_token(backbone):
            backbone.save_pretrained(path)
        if tokenizer is not None:
            tokenizer.save_pretrained(path)
        return Path(path)


@contextmanager
def safe_pad_token(backbone: nn.Module) -> Iterator[None]:
    """Within the block the config has no pad token where it equals the end token, so that files saved are
    safe.

    transformers pools at the last token that differs from `pad_token_id`: with pad == eos it would read the
    token before the end token. Without a pad token it reads the last token, and refuses a padded batch
    instead of scoring it wrongly. Our own scoring goes by the attention mask and needs neither.
    """
    config = classifier_of(backbone).config
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    pad, eos = text_config.pad_token_id, text_config.eos_token_id
    is_unsafe = pad is not None and pad in (eos if isinstance(eos, list) else [eos])
    try:
        if is_unsafe:
            text_config.pad_token_id = None
        yield
    finally:
        text_config.pad_token_id = pad


def _existing_folder(path: str | os.PathLike[str]) -> Path:
    folder = Path(path).expanduser()
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        what = "does not exist" if not folder.exists() else "has no config.json"
        raise ModelError(f"reward model folder {folder} {what}; give a folder that save_pretrained wrote")
    return folder


def _load_classifier(folder: Path, options: dict[str, Any], seed: int) -> Any:
    """The model of `folder` with one label; a head that the folder lacks is drawn from `seed`."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(folder)
    is_classifier = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    if is_classifier and config.num_labels != 1:
        raise ModelError(
            f"{folder} is a classifier with {config.num_labels} labels; a reward model has one. Take the "
            "model it was fine-tuned from, or train it again with num_labels=1"
        )
    try:
        with _quiet_load():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, num_labels=1, use_safetensors=True, output_loading_info=True, **options
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder} cannot be loaded as a sequence-classification model: {first}") from error
    _check_report(folder, model, report)
    if any(key.split(".")[0] == head_name(model) for key in report["missing_keys"]):
        draw_head(getattr(model, head_name(model)), seed)
    return model


def _check_report(folder: Path, model: Any, report: dict[str, Any]) -> None:
    """Only the head may be new; anything else that the folder lacks would be random weights inside the trunk."""
    lacking = sorted(
        key
        for key in report["missing_keys"]
        if key.split(".")[0] not in ("score", "classifier", "pre_classifier") and ".pooler." not in key
    )
    if lacking:
        raise ModelError(
            f"{folder} lacks {len(lacking)} weights of {type(model).__name__} besides the head (first: "
            f"{lacking[0]}); they would be random. Its files are incomplete, or of another architecture than "
            "its config says"
        )


@torch.no_grad()
def draw_head(head: nn.Module, seed: int) -> None:
    """Weights from `N(0, 1/(H+1))` with their own `seed`, biases zero (arXiv 2009.01325)."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in head.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        else:
            std = (parameter.shape[-1] + 1) ** -0.5
            parameter.copy_(torch.normal(0.0, std, parameter.shape, generator=generator))


def _load_adapter(folder: Path, options: dict[str, Any], seed: int) -> Any:
    from peft import PeftConfig, PeftModel

    base = PeftConfig.from_pretrained(folder).base_model_name_or_path
    try:
        backbone = _load_classifier(_existing_folder(base or ""), options, seed)
    except ModelError as error:
        raise ModelError(f"{folder} is an adapter, and the model under it cannot be loaded: {error}") from error
    return PeftModel.from_pretrained(backbone, folder)


def classification_config(peft_config: Any) -> Any:
    """`peft_config` under the task for which peft trains the new head with the adapter.

    Args:
        peft_config: a mapping of LoRA fields, or a `peft.PeftConfig`.

    Raises:
        ConfigError: it names another task; the head would stay random then.
    """
    if isinstance(peft_config, Mapping):
        peft_config = dict(peft_config)
        task = peft_config.setdefault("task_type", SEQ_CLS)
    else:
        peft_config = copy.deepcopy(peft_config)
        peft_config.task_type = task = peft_config.task_type or SEQ_CLS
    if task != SEQ_CLS:
        raise ConfigError(
            f"peft_config of a reward model must have task_type='{SEQ_CLS}', got {str(task)!r}: under another "
            "task the new head would not be trained"
        )
    return peft_config


@contextmanager
def _quiet_load() -> Iterator[None]:
    """No report of a new head on every load: `_check_report` reads the same report and speaks where it matters."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
