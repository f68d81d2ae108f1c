"""The value model of PPO, and its files."""

from __future__ import annotations

import copy
import inspect
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel

from rlsft.artifacts import atomic_path, write_json
from rlsft.errors import ModelError
from rlsft.models import is_lora, position_ids_of, trunk_of

HEAD_FILE = "value_head.safetensors"
CONFIG_FILE = "value_config.json"


class ValueModel(nn.Module):
    """Expected return of the state before each token: a float32 linear head on hidden states.

    The head starts at zero, so that the first advantages are the rewards themselves.

    Args:
        hidden_size: width of the hidden states.
        trunk: a transformer of its own (no head), or None to read the policy's hidden states.
    """

    def __init__(self, hidden_size: int, trunk: nn.Module | None = None):
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def is_shared(self) -> bool:
        """Whether it reads the policy's hidden states."""
        return self.trunk is None

    def forward(
        self,
        input_ids: Tensor,  # [B, T] int64
        attention_mask: Tensor,  # [B, T]
        policy_hidden: Tensor,  # [B, T, H]
    ) -> Tensor:
        """Values `[B, T]` float32; position `t` is the value before `input_ids[:, t]` was chosen, position 0 is 0."""
        hidden = policy_hidden if self.trunk is None else self._own_hidden(input_ids, attention_mask)
        with torch.autocast(hidden.device.type, enabled=False):  # a bfloat16 head could not tell returns apart
            values = self.head(hidden[:, :-1].float())[..., 0]
        return nn.functional.pad(values, (1, 0))

    def _own_hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        assert self.trunk is not None
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask.long(), "use_cache": False}
        if "position_ids" in inspect.signature(self.trunk.forward).parameters:
            inputs["position_ids"] = position_ids_of(attention_mask)
        return self.trunk(**inputs)[0]

    @classmethod
    def shared_with(cls, policy: nn.Module) -> ValueModel:
        """A head on the hidden states of `policy`."""
        return cls(hidden_size_of(policy)).to(next(policy.parameters()).device)

    @classmethod
    def separate_from(cls, model: nn.Module) -> ValueModel:
        """A model of its own that starts as a copy of the trunk of `model`.

        A sequence-classification model with one output gives its head too.

        Raises:
            ModelError: `model` carries an adapter, which the copy would not know how to save.
        """
        if is_lora(model):
            raise ModelError(
                "a separate value model cannot be copied from a policy with an adapter; pass value_model=... (a plain "
                "model), or use value_model='shared' in PPOConfig"
            )
        source: Any = model
        trunk = copy.deepcopy(trunk_of(source) if source.get_output_embeddings() is not None else source.base_model)
        trunk.requires_grad_(True)
        value = cls(hidden_size_of(model), trunk).to(next(trunk.parameters()).device)
        score = getattr(model, "score", None)
        if isinstance(score, nn.Linear) and score.out_features == 1:
            value.head.weight.data.copy_(score.weight.data)
        return value

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Write the head, and the trunk if it has its own, to a folder for `from_pretrained`."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        if self.trunk is not None:
            self.trunk.save_pretrained(folder)  # type: ignore[operator]
        with atomic_path(folder / HEAD_FILE) as partial:
            save_file({k: v.detach().contiguous().cpu() for k, v in self.head.state_dict().items()}, partial)
        write_json(folder / CONFIG_FILE, {"shared": self.is_shared, "hidden_size": self.head.in_features})

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> ValueModel:
        """The value model of a folder written by `save_pretrained`.

        Raises:
            ModelError: the folder holds no value model.
        """
        import json

        folder = Path(path)
        if not (folder / CONFIG_FILE).is_file():
            raise ModelError(
                f"{folder} holds no value model ({CONFIG_FILE} is missing); PPO writes one to value_model/"
            )
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        trunk = None if config["shared"] else AutoModel.from_pretrained(folder, dtype="auto")
        value = cls(config["hidden_size"], trunk)
        value.head.load_state_dict(load_file(folder / HEAD_FILE))
        return value


def value_model_for(
    policy: nn.Module, given: ValueModel | str | os.PathLike[str] | nn.Module | None, *, kind: str | None
) -> ValueModel | None:
    """The value model of a run; made before the policy gets its adapter.

    Args:
        policy: a causal LM.
        given: a value model, its folder, a transformers model to make one from, or None.
        kind: what to make of `policy` where nothing is given, "shared" or "separate"; None = no value model.
    """
    if kind is None:
        return None
    if isinstance(given, ValueModel):
        return given
    if isinstance(given, nn.Module):
        return ValueModel.separate_from(given)
    if given is not None:
        return ValueModel.from_pretrained(given)
    return ValueModel.separate_from(policy) if kind == "separate" else ValueModel.shared_with(policy)


def hidden_size_of(model: nn.Module) -> int:
    """Width of the hidden states of a transformers model."""
    config: Any = model.config
    return (config.get_text_config() if hasattr(config, "get_text_config") else config).hidden_size
