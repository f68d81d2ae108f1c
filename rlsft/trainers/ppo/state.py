"""What a PPO checkpoint holds beyond transformers' files, so that a run resumes as if it had never stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from rlsft.artifacts import atomic_path, write_json
from rlsft.errors import RunError
from rlsft.models import is_lora, unwrap
from rlsft.rollouts import RolloutBatch
from rlsft.trainers.ppo.value import ValueModel

STATE_FILE = "rl_state.json"
VALUE_FOLDER = "value_model"


def buffer_file(rank: int) -> str:
    """Name of a rank's rollout buffer in a checkpoint."""
    return "rollout_buffer.safetensors" if rank == 0 else f"rollout_buffer_{rank}.safetensors"


def save_rollouts(path: str | os.PathLike[str], batch: RolloutBatch) -> None:
    """Write every tensor of `batch`, and its temperature, to one safetensors file."""
    tensors = {name: value.cpu().clone() for name, value in batch.tensors().items()}  # fields may share memory
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata={"temperature": repr(batch.temperature)})


def load_rollouts(path: str | os.PathLike[str], device: torch.device | str) -> RolloutBatch:
    """The batch of `save_rollouts`, bit for bit.

    Raises:
        RunError: no such file.
    """
    if not Path(path).is_file():
        raise RunError(
            f"{path} is missing: the checkpoint was made in the middle of a batch of answers and cannot go on without "
            "them. Resume from an earlier checkpoint, with the same number of processes."
        )
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118  # no iterator
        temperature = float(file.metadata()["temperature"])
    return RolloutBatch(temperature=temperature, **tensors)  # type: ignore[arg-type]


def save_state(folder: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write the counters and the KL controller."""
    write_json(Path(folder) / STATE_FILE, state)


def load_state(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save_state` wrote.

    Raises:
        RunError: the checkpoint is not one of PPO, or was made with `save_only_model`.
    """
    file = Path(folder) / STATE_FILE
    if not file.is_file():
        raise RunError(
            f"{folder} has no {STATE_FILE}: it is no PPO checkpoint, or was written with save_only_model=True, and "
            "cannot be resumed"
        )
    return json.loads(file.read_text(encoding="utf-8"))


def load_policy(policy: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Put the weights of a checkpoint into `policy`: an adapter's where it has one, else all of them.

    Raises:
        RunError: the folder holds weights of another model.
    """
    if is_lora(policy):
        from peft import load_peft_weights, set_peft_model_state_dict

        result = set_peft_model_state_dict(unwrap(policy), load_peft_weights(str(folder), device="cpu"))
        unexpected, missing = list(result.unexpected_keys), []
    else:
        state: dict[str, torch.Tensor] = {}
        for file in sorted(Path(folder).glob("model*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                state |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        result = policy.load_state_dict(state, strict=False)
        tied = set(getattr(policy, "all_tied_weights_keys", None) or ())
        unexpected = list(result.unexpected_keys)
        missing = [name for name in result.missing_keys if name not in tied]
    if unexpected or missing:
        raise RunError(
            f"the weights in {folder} are not those of this policy: {len(missing)} missing, {len(unexpected)} unknown "
            f"(first: {(missing + unexpected)[0]!r}). Build the trainer with the model the run was started with."
        )


def load_value(value: ValueModel, folder: str | os.PathLike[str]) -> None:
    """Put the weights of a saved value model into `value`."""
    saved = ValueModel.from_pretrained(folder)
    value.load_state_dict(saved.state_dict())
