"""`rlsft COMMAND …`: the table of commands, and one place where errors become messages."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from rlsft._version import __version__
from rlsft.errors import RlsftError, did_you_mean

# command -> (module with `run(argv) -> int`, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("rlsft.cli.str_commands", "the main job on real dialogues, end to end"),
    "str": ("rlsft.cli.str_commands", "SFT -> sample -> rank -> reward model -> PPO on your data"),
    "rft": ("rlsft.cli.rft_commands", "SFT -> rounds of samples -> reward -> policy on your data"),
    "sft": ("rlsft.cli.train_commands", "supervised fine-tuning on demonstrations"),
    "reward": ("rlsft.cli.train_commands", "train a reward model on chosen/rejected pairs"),
    "irft": ("rlsft.cli.train_commands", "fine-tune against the model's own answers; no reward model (SPIN, DPO too)"),
    "ppo": ("rlsft.cli.train_commands", "improve a policy with PPO on a reward model"),
    "rank": ("rlsft.cli.rank_command", "rank several responses a prompt with TextRank and ISODATA"),
    "filter": ("rlsft.cli.reward_commands", "rank your own demonstrations by a learned reward, see the worst"),
    "generate": ("rlsft.cli.model_commands", "answers of a model to prompts"),
    "export": ("rlsft.cli.model_commands", "a plain transformers folder from a run or an adapter; token rewards"),
    "eval": ("rlsft.cli.eval_commands", "compare two models on held-out prompts; log-probability gap; benchmarks"),
    "report": ("rlsft.cli.eval_commands", "one HTML page about a run"),
    "plot": ("rlsft.cli.eval_commands", "plots of a run as SVG and PNG files"),
    "doctor": ("rlsft.cli.doctor_command", "what this installation can do and what is missing"),
    "bench": ("rlsft.cli.doctor_command", "time the ops against their peers (in a checkout)"),
}


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {help_}" for name, (_, help_) in COMMANDS.items()]
    return "\n".join(
        [
            f"rlsft {__version__}: fine-tune language models from demonstrations with learned rewards",
            "",
            "usage: rlsft COMMAND [--config FILE.yaml] [--key value ...]     rlsft COMMAND --help",
            "",
            *lines,
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status. 0: done, 1: a bug, 2: bad input, 130: interrupted and resumable."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(usage())
        return 0
    if arguments[0] in {"-V", "--version", "version"}:
        print(__version__)
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS)
        print(f"rlsft: unknown command {command!r}{hint}\n\n{usage()}", file=sys.stderr)
        return 2
    return run_guarded(command, rest)


def run_guarded(command: str, argv: Sequence[str]) -> int:
    """Run a command; turn the errors a user can mend into one message, an interrupt into how to go on."""
    module, _ = COMMANDS[command]
    # a scheduler's SIGTERM ends a run as Ctrl-C does: after the step, with a checkpoint
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(importlib.import_module(module).run(command, list(argv)) or 0)
    except RlsftError as error:
        if os.environ.get("RLSFT_TRACEBACK") == "1":
            raise
        print(f"rlsft {command}: {error}", file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in {"rlsft", "rlsft_kernels"}:
            raise
        print(
            f"rlsft {command}: needs the Python package {error.name!r}, which is not installed. "
            f"pip install 'rlsft[train,peft,eval]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(
            f"\nrlsft {command}: interrupted. What is finished is kept; "
            "start the same command again to go on from there.",
            file=sys.stderr,
        )
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    sys.exit(main())
