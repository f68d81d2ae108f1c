"""`rlsft rft`: SFT, then rounds of samples -> explicit reward -> policy, on your demonstrations."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from rlsft.cli.job import JobArguments, resolve_model, train_and_eval
from rlsft.cli.parsing import parse

DESCRIPTION = (
    "RFT (arXiv 2405.17888): SFT, then rounds of samples -> explicit reward on demonstration-versus-sample pairs -> "
    "policy step under a KL penalty, on your demonstrations."
)


def run(command: str, argv: Sequence[str]) -> int:
    """Parse, load, show (`--dry_run`) or train, print the tables."""
    from rlsft.cli.str_commands import quiet_libraries
    from rlsft.models import load_tokenizer
    from rlsft.trainers.rft.config import RFTConfig
    from rlsft.trainers.rft.trainer import RFTTrainer

    (job, args), flags = parse(command, [JobArguments, RFTConfig], argv, description=DESCRIPTION)
    job.require("model", "train_data")
    quiet_libraries()
    model = resolve_model(job.model, args.dtype)
    train, held_out = train_and_eval(job)
    if flags.dry_run:
        return dry_run(model, train, args, job)
    start = time.perf_counter()
    tokenizer = load_tokenizer(model, pad_token=job.pad_token)
    trainer = RFTTrainer(model=model, args=args, train_dataset=train, eval_dataset=held_out, processing_class=tokenizer)
    result = trainer.train()
    if result is None:
        print(f"stopped after stage {args.stop_after}; results so far are in {args.output_dir}")
        return 0
    show(result, time.perf_counter() - start)
    return 0


def dry_run(model: str, train: Any, args: Any, job: JobArguments) -> int:
    """What `rlsft sft --dry_run` shows, the stages of the run, and its memory on one trunk and on separate models."""
    from rich.console import Console

    from rlsft.cli import train_commands
    from rlsft.data import preview
    from rlsft.models import load_tokenizer
    from rlsft.trainers.rft.memory import estimate_memory
    from rlsft.trainers.rft.stages import stage_names

    train_commands.dry_run(model, train, args, job)
    shown = preview(
        train,
        load_tokenizer(model, pad_token=job.pad_token),
        max_length=args.max_length or 1024,
        system_prompt=args.system_prompt,
        truncate_prompt=args.truncate_prompt,
    )
    longest = min(args.max_length or 1024, shown.longest)
    console = Console()
    console.print(estimate_memory(model, args, sequence_length=longest))
    console.print("stages: " + ", ".join(stage_names(args.rounds)))
    return 0


def show(result: Any, seconds: float) -> None:
    """The tables of a finished run on the terminal."""
    from rich.console import Console

    from rlsft.trainers.rft.evaluation import summary_renderables

    console = Console(width=None if sys.stdout.isatty() else 120)
    for part in summary_renderables(result.output_dir):
        console.print(part)
    console.print(f"\nAll of it is in {result.output_dir} (report.html, plots/, round_NN/); {seconds / 60:.1f} min.")
