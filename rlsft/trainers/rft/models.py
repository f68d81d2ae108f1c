"""The models of a run: policies, references and rewards, each loaded alone or all on one base model in memory."""

from __future__ import annotations

import copy
import gc
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlsft.errors import ModelError
from rlsft.models import load_causal_lm, merge_lora, trunk_of
from rlsft.rewards import RewardModel
from rlsft.rewards.model import draw_head
from rlsft.rewards.pooling import head_name


def sharing(model: nn.Module) -> Any:
    """Another module tree over the very parameters and buffers of `model`: adapters of one do not touch the other.

    LoRA leaves the weights below it as they are, so trees that share them can be trained apart, side by side, for the
    memory of their adapters. No adapter is ever switched: what a tree computes does not depend on what was done last.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def classifier_on(causal: Any, *, seed: int, attn_implementation: str | None = None) -> Any:
    """A sequence-classification model with one label and a new head on a trunk shared with `causal`.

    Gives the scores of `RewardModel.from_pretrained` on the same folder and seed.

    Raises:
        ModelError: the architecture has no classification model with this trunk.
    """
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(causal.config)
    config.num_labels = 1
    options: dict[str, Any] = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    weight = next(causal.parameters())
    try:
        with torch.device("meta"):
            classifier = AutoModelForSequenceClassification.from_config(config, dtype=weight.dtype, **options)
    except ValueError as error:
        raise ModelError(f"{type(causal).__name__} has no sequence-classification model: {error}") from error
    name = causal.base_model_prefix
    if getattr(classifier, "base_model_prefix", None) != name or not hasattr(classifier, name):
        raise ModelError(
            f"{type(classifier).__name__} has another trunk than {type(causal).__name__}; set share_trunk=False"
        )
    setattr(classifier, name, sharing(trunk_of(causal)))
    head = getattr(classifier, head_name(classifier))
    head.to_empty(device=weight.device)
    draw_head(head, seed)
    classifier.name_or_path = causal.name_or_path
    return classifier.eval()


class RunModels:
    """Makes the models of a run from its base model, an SFT policy.

    With LoRA a policy or reward on the disk is an adapter for the base; without, a whole model. Shared or not gives the
    same numbers, bit for bit.

    Args:
        base: folder of the base model.
        args: dtype, attention code, seed, `use_peft` and `shares_trunk` are read.
    """

    def __init__(self, base: str | os.PathLike[str], args: Any) -> None:
        self.folder = str(base)
        self.args = args
        self._loaded: Any = None

    def policy(self, folder: Path | None = None, *, trainable: bool = False) -> Any:
        """The policy of `folder`; None = the base itself, on which a trainer puts a new adapter."""
        if folder is None:
            return self._base()
        return self._adapted(self._base(), folder, trainable) if self.args.use_peft else self._load(folder)

    def reward(self, folder: Path | None = None, *, trainable: bool = False) -> RewardModel:
        """The reward of `folder`; None = a new head on the base."""
        args = self.args
        if args.use_peft and args.shares_trunk:
            backbone = classifier_on(self._resident(), seed=args.seed, attn_implementation=args.attn_implementation)
        else:
            source = self.folder if folder is None or args.use_peft else folder
            backbone = RewardModel.from_pretrained(
                source, dtype=args.dtype, attn_implementation=args.attn_implementation, seed=args.seed
            ).backbone
        if folder is not None and args.use_peft:
            backbone = self._adapted(backbone, folder, trainable)
        reward = RewardModel(backbone)
        reward.set_bound(args.reward_bound)  # an adapter's folder does not hold the config
        return reward

    def save_reward(self, backbone: Any, folder: Path) -> None:
        """Write what `reward` reads."""
        if self.args.use_peft:
            backbone.save_pretrained(folder)
        else:
            RewardModel(backbone).save_pretrained(folder)

    def export_policy(self, folder: Path | None, target: Path, tokenizer: Any) -> None:
        """Write the policy as a plain transformers folder; at no time are there two models in memory."""
        self.release()
        policy = self._load(self.folder if folder is None or self.args.use_peft else folder)
        if folder is not None and self.args.use_peft:
            policy = merge_lora(self._adapted(policy, folder, trainable=False))
        policy.save_pretrained(target)
        tokenizer.save_pretrained(target)

    def export_reward(self, folder: Path, target: Path, tokenizer: Any) -> None:
        """Write the reward as a plain classification folder, which `RewardModel.from_pretrained` reads."""
        self.release()
        source = self.folder if self.args.use_peft else folder
        backbone = RewardModel.from_pretrained(source, dtype=self.args.dtype, seed=self.args.seed).backbone
        if self.args.use_peft:
            backbone = merge_lora(self._adapted(backbone, folder, trainable=False))
        reward = RewardModel(backbone)
        reward.set_bound(self.args.reward_bound)
        reward.save_pretrained(target, tokenizer)

    def release(self) -> None:
        """Forget the resident base; models made earlier keep it as long as they live."""
        self._loaded = None
        gc.collect()

    def _base(self) -> Any:
        return sharing(self._resident()) if self.args.shares_trunk else self._load(self.folder)

    def _resident(self) -> Any:
        """The base model that shared trees are made of; frozen, because each of them would feel a change."""
        if self._loaded is None:
            self._loaded = self._load(self.folder).requires_grad_(False)
        return self._loaded

    def _load(self, folder: str | Path) -> Any:
        return load_causal_lm(folder, dtype=self.args.dtype, attn_implementation=self.args.attn_implementation)

    def _adapted(self, model: Any, folder: Path, trainable: bool) -> Any:
        from peft import PeftModel

        return PeftModel.from_pretrained(model, folder, is_trainable=trainable)


def storage_bytes(*models: nn.Module) -> int:
    """Bytes of the distinct parameters of `models` together; what they share counts once."""
    distinct = {id(parameter): parameter for model in models for parameter in model.parameters()}
    return sum(parameter.numel() * parameter.element_size() for parameter in distinct.values())
