"""What was asked for on the command line, for the benches that take shapes of the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

DTYPES = {
    "fp32": "float32", "float32": "float32", "bf16": "bfloat16", "bfloat16": "bfloat16",
    "fp16": "float16", "float16": "float16",
}  # fmt: skip
KEPT = ("rlsft", "floor")  # providers that no choice of peers leaves out


@dataclass(frozen=True)
class Request:
    """Shapes, dtypes, threads and peers; what is empty is the bench's own choice."""

    quick: bool = False
    shape: Mapping[str, int] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    peers: tuple[str, ...] = ()
    device: str = "cpu"

    @property
    def full(self) -> bool:
        """FULL=1: every shape of the table."""
        return os.environ.get("FULL") == "1" and not self.quick

    def wants(self, provider: str) -> bool:
        """Ours and the floors always; a peer when it was named, or when none was."""
        name = provider.lower()
        return name.startswith(KEPT) or not self.peers or any(peer in name for peer in self.peers)


def parse_shape(text: str) -> dict[str, int]:
    """ "N=2048,H=768" as a dict."""
    shape = {}
    for part in text.split(","):
        letter, _, number = part.partition("=")
        if not letter.strip() or not number.strip().isdigit() or int(number) < 1:
            raise ValueError(f"--shape wants sizes as N=2048,H=768,V=50257, got {text!r}")
        shape[letter.strip()] = int(number)
    return shape


def parse_dtypes(text: str) -> tuple[str, ...]:
    """ "bf16,fp32" as torch's names."""
    names = [part.strip() for part in text.split(",")]
    unknown = [name for name in names if name not in DTYPES]
    if unknown:
        raise ValueError(f"--dtype must be of {', '.join(DTYPES)}, got {unknown[0]!r}")
    return tuple(DTYPES[name] for name in names)
