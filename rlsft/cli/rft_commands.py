"""`rlsft rft`: SFT, then rounds of samples -> explicit reward -> policy, on your demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlsft.cli.chain_run import ChainCommand

DESCRIPTION = (
    "RFT (arXiv 2405.17888): SFT, then rounds of samples -> explicit reward on demonstration-versus-sample pairs -> "
    "policy step under a KL penalty, on your demonstrations."
)


def run(command: str, argv: Sequence[str]) -> int:
    """See `ChainCommand.run`."""
    from rlsft.trainers.rft.config import RFTConfig
    from rlsft.trainers.rft.evaluation import summary_renderables
    from rlsft.trainers.rft.trainer import RFTTrainer

    chain = ChainCommand(command, DESCRIPTION, RFTConfig, RFTTrainer, summary_renderables, show_memory_and_stages)
    return chain.run(argv)


def show_memory_and_stages(model: str, sequence_length: int, args: Any) -> None:
    """The memory of a run on one trunk and on separate models, and its stages."""
    from rich.console import Console

    from rlsft.trainers.rft.memory import estimate_memory

    console = Console()
    console.print(estimate_memory(model, args, sequence_length=sequence_length))
    console.print("stages: " + ", ".join(args.stage_names()))
