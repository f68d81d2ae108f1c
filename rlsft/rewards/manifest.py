"""`token_reward.json`: which two checkpoints a token reward comes from, at which scale and in which template."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlsft._version import __version__
from rlsft.errors import ModelError

MANIFEST = "token_reward.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything needed to compute the same rewards again."""

    policy: str  # folder
    reference: str | None  # folder; None = the policy's base, its adapter switched off
    beta: float
    token_level: bool  # whether PPO spreads the reward over the tokens
    max_length: int
    system_prompt: str | None
    truncate_prompt: bool
    pad_token: str
    template: str  # digest of the chat template, "none" without one
    rlsft: str = __version__
    format: int = FORMAT

    @classmethod
    def of(cls, policy: str, reference: str | None, *, tokenizer: Any, **settings: Any) -> Manifest:
        """The manifest of two folders, named by their absolute paths."""
        return cls(
            policy=str(Path(policy).expanduser().resolve()),
            reference=None if reference is None else str(Path(reference).expanduser().resolve()),
            pad_token=tokenizer.pad_token,
            template=template_digest(tokenizer),
            **settings,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def template_digest(tokenizer: Any) -> str:
    """A short name of the chat template that changes when it does."""
    template = getattr(tokenizer, "chat_template", None)
    if template is None:
        return "none"
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:16]


def is_implicit_reward(path: str | os.PathLike[str]) -> bool:
    """Whether the folder holds a token-reward manifest."""
    return (Path(path) / MANIFEST).is_file()


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest of a folder.

    Raises:
        ModelError: there is none, it is broken, or a checkpoint that it names is gone.
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise ModelError(f"{path} has no {MANIFEST}; rlsft export --token-rewards writes one")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise ModelError(f"{file} has format {values.get('format')!r}, this version reads {FORMAT}; export it anew")
        known = {field.name for field in dataclasses.fields(Manifest)}
        manifest = Manifest(**{name: value for name, value in values.items() if name in known})
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} is broken ({error}); export the token rewards again") from error
    for name in ("policy", "reference"):
        folder = getattr(manifest, name)
        if folder is not None and not Path(folder).is_dir():
            raise ModelError(
                f"{file} names the {name} checkpoint {folder}, which is gone; correct the path in the file"
            )
    return manifest
