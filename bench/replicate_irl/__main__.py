"""Runs the experiments that are not on file yet, judges their answers, writes the report.

    python -m bench.replicate_irl run --tasks sorting,dialogues,smollm2 [--seeds 0-4] [--methods sft_steps,irft_2]
    python -m bench.replicate_irl run --tasks sorting --seeds 100 --variants "beta=0.1;beta=1" --results /tmp/tuning
    python -m bench.replicate_irl judge      the judge's win rates, for answers in the work folder
    python -m bench.replicate_irl report     docs/replication_irl.md and its plots

A row is appended when its training is measured, so a run that was stopped goes on where it was. Seeds from 100 on are
for choosing settings; the report leaves them out.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from bench.measure import ROOT
from bench.replicate.rows import RESULTS, changed, numbers
from bench.replicate_irl.methods import METHODS


def main(arguments: list[str] | None = None) -> int:
    """Runs, judges or reports."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.replicate_irl", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "judge", "report"))
    parser.add_argument("--tasks", default="sorting,dialogues,smollm2")
    parser.add_argument("--seeds", default="0-4", type=numbers)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--only", default="", help="conditions, as regime=early,bad=0.0|0.4")
    parser.add_argument("--set", default="", help="settings of the budget, as beta=0.2,steps=100")
    parser.add_argument("--variants", default="", help="several changes of them, with ';' between, from one start")
    parser.add_argument("--results", default=RESULTS / "replicate_irl", type=Path, help="folder of the rows")
    parser.add_argument("--most", default=256, type=int, help="judged prompts a row")
    parser.add_argument("--docs", default=ROOT / "docs", type=Path, help="folder of the report")
    parser.add_argument(
        "--work", default=Path(tempfile.gettempdir()) / "replicate_irl", type=Path, help="folder of answers and runs"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.command == "report":
        from bench.replicate_irl.report import write_report

        print(write_report(options.results, options.docs))
    elif options.command == "judge":
        from bench.replicate_irl.judged import judge_all

        judge_all(options.results, options.work, options.seeds, options.most)
    else:
        run_all(parser, options)
    return 0


def run_all(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Every seed of one condition after the other, so that an early stop leaves whole seeds."""
    from bench.replicate_irl.experiments import EXPERIMENTS
    from bench.replicate_irl.run import run

    methods = options.methods.split(",")
    for given, known in ((methods, METHODS), (options.tasks.split(","), EXPERIMENTS)):
        if unknown := sorted(set(given) - set(known)):
            parser.error(f"nothing is named {', '.join(unknown)}; there are {', '.join(known)}")
    warnings.filterwarnings("ignore")  # what the trainers teach their users is known here
    logging.disable(logging.WARNING)
    wanted = dict(part.split("=", 1) for part in options.only.split(",") if part)
    for name in options.tasks.split(","):
        for seed in options.seeds:
            for condition in EXPERIMENTS[name]:
                if any(str(condition.facts.get(fact)) not in value.split("|") for fact, value in wanted.items()):
                    continue
                common = changed(condition.budget, options.set)
                budgets = [changed(common, variant) for variant in options.variants.split(";")]
                run(name, condition, seed, methods, budgets, results=options.results, work=options.work)


if __name__ == "__main__":
    sys.exit(main())
