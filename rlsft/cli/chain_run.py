"""What `rlsft str`, `rlsft demo` and `rlsft rft` share: parse, load, show or run the chain, print its tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlsft.cli.job import JobArguments, resolve_model, train_and_eval
from rlsft.cli.parsing import parse
from rlsft.cli.train_commands import dry_run


@dataclass(frozen=True)
class ChainCommand:
    """A command that runs a chain of stages.

    Args:
        name: of the command.
        description: for --help.
        config: class of the settings.
        trainer: class of the chain.
        summary: what the terminal shows of a finished run's folder.
        more_of_dry_run: shows what the method has to say before a run, from model, sequence length and settings.
        defaults: settings in place of the classes' own.
    """

    name: str
    description: str
    config: type
    trainer: Callable[..., Any]
    summary: Callable[[Path], list[Any]]
    more_of_dry_run: Callable[[str, int, Any], None] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def run(self, argv: Sequence[str]) -> int:
        """Parse, load, show (`--dry_run`) or train, print the tables."""
        from rlsft.models import load_tokenizer

        (job, args), flags = parse(
            self.name, [JobArguments, self.config], argv, description=self.description, defaults=self.defaults
        )
        job.require("model", "train_data")
        quiet_libraries()
        model = resolve_model(job.model, args.dtype)
        train, held_out = train_and_eval(job)
        if flags.dry_run:
            length = dry_run(model, train, args, job)
            if self.more_of_dry_run is not None:
                self.more_of_dry_run(model, length, args)
            return 0
        start = time.perf_counter()
        chain = self.trainer(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=held_out,
            processing_class=load_tokenizer(model, pad_token=job.pad_token),
        )
        result = chain.train()
        if result is None:
            print(f"stopped after stage {args.stop_after}; results so far are in {args.output_dir}")
        else:
            self._show(result.output_dir, time.perf_counter() - start)
        return 0

    def _show(self, folder: Path, seconds: float) -> None:
        """The tables of a finished run on the terminal."""
        from rich.console import Console

        console = Console(width=None if sys.stdout.isatty() else 120)
        for part in self.summary(folder):
            console.print(part)
        console.print(f"\nAll of it is in {folder} (report.html, plots/, evaluation/); {seconds / 60:.1f} min.")


def quiet_libraries() -> None:
    """Leave the terminal to our own progress: transformers' and datasets' bars and notices off."""
    import warnings

    import datasets
    import transformers

    # of transformers about itself: nothing that a user of the command line could change
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
