"""Runs the experiments that are not on file yet, one row each, and writes the report.

    python -m bench.replicate_str run    [--tasks sorting,sweep,wordnet,dialogues,smollm2,judge] [--seeds 0-4]
                                      [--methods full,str_ours] [--set steps=100]
    python -m bench.replicate_str report

A row is appended when its training is measured, so a run that was stopped goes on where it was. Seeds from 100 on are
for choosing settings; the report leaves them out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.measure import ROOT
from bench.replicate.rows import RESULTS, numbers

TASKS = ("sorting", "sweep", "wordnet", "dialogues", "smollm2", "judge")
FEWER_SEEDS = {"sweep": 3, "smollm2": 3}  # these two take the first seeds alone


def main(arguments: list[str] | None = None) -> int:
    """Runs, or reports."""
    from bench.replicate_str.methods import METHODS
    from bench.replicate_str.smollm2 import METHODS as SMOLLM2_METHODS

    known = list(dict.fromkeys([*METHODS, *SMOLLM2_METHODS]))
    parser = argparse.ArgumentParser(
        prog="python -m bench.replicate_str", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", default="0-4", type=numbers)
    parser.add_argument("--methods", default=",".join(known))
    parser.add_argument("--set", default="", help="settings of the budget, as steps=100,kl_coef=0.2")
    parser.add_argument("--results", default=str(RESULTS / "replicate_str"), help="folder of the rows")
    parser.add_argument("--work", default="runs/replicate_str", help="folder of SmolLM2's trainings and answers")
    parser.add_argument("--docs", default=str(ROOT / "docs"), help="folder of the report")
    options = parser.parse_args(arguments)
    if options.command == "report":
        from bench.replicate_str.report import write_report

        print(write_report(Path(options.results), Path(options.docs)))
        return 0
    chosen, methods = options.tasks.split(","), options.methods.split(",")
    for what, names, there in (("task", chosen, TASKS), ("method", methods, known)):
        unknown = sorted(set(names) - set(there))
        if unknown:
            parser.error(f"no {what} named {', '.join(unknown)}; there are {', '.join(there)}")
    run(chosen, options.seeds, methods, options.set, Path(options.results), Path(options.work))
    return 0


def run(chosen: list[str], seeds: list[int], methods: list[str], changes: str, results: Path, work: Path) -> None:
    """Task by task, seed by seed."""
    import torch

    from bench.replicate_str import run as runs
    from bench.replicate_str.methods import METHODS

    torch.set_num_threads(1)
    quiet_libraries()
    if "judge" in chosen:  # last, whatever the order: it judges what the others drew
        chosen = [task for task in chosen if task != "judge"]
        run(chosen, seeds, methods, changes, results, work)
        runs.run_judge(seeds, results, work)
        return
    for task in chosen:
        for seed in seeds:
            if seed < 100 and seed >= FEWER_SEEDS.get(task, 100):
                continue
            if task == "sweep":
                runs.run_sweep(seed, changes, results)
            elif task == "smollm2":
                runs.run_smollm2(seed, methods, changes, results, work)
            else:
                runs.run_task(task, seed, [name for name in METHODS if name in methods], changes, results, work)


def quiet_libraries() -> None:
    """Leave the terminal to the rows."""
    import warnings

    import datasets
    import transformers

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


if __name__ == "__main__":
    sys.exit(main())
