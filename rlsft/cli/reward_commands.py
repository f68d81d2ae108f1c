"""`rlsft export --token-rewards` and `rlsft filter`: what a learned reward says about data."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlsft.cli.job import JobArguments, load_data, resolve_model
from rlsft.cli.model_commands import Parser
from rlsft.errors import ConfigError, RunError


def run(command: str, argv: Sequence[str]) -> int:
    return filter_demonstrations(argv)


def export_rewards(argv: Sequence[str]) -> int:
    """Token rewards of demonstrations, and the manifest that `rlsft ppo --reward_model` takes."""
    parser = Parser(
        "rlsft export --token-rewards",
        description="beta * (log pi_policy - log pi_reference) of every completion token, from any two checkpoints "
        "with one vocabulary. The output folder is a reward: rlsft ppo --reward_model FOLDER.",
        allow_abbrev=False,
    )
    parser.add_argument("--token-rewards", "--token_rewards", action="store_true", required=True)
    _add_pair(parser, required=True)
    _add_texts(parser)
    parser.add_argument(
        "--sequence_level", action="store_true", help="in PPO the sum counts at the end of an answer, not each token"
    )
    parser.add_argument("--output_dir", required=True, help="new folder")
    args = parser.parse_args(list(argv))

    from rlsft.data import as_demonstrations
    from rlsft.rewards import export_token_rewards

    _new_folder(args.output_dir)
    rows = as_demonstrations(load_data(args.data, "test", JobArguments(column_map=args.column_map)), args.data)
    reward = _implicit(args, token_level=not args.sequence_level)
    with _progress("token rewards", 2 * len(rows)) as on_batch:
        written = export_token_rewards(reward, rows, args.output_dir, on_batch=on_batch)
    print(
        f"{written['rows']} answers, {written['tokens']} tokens; mean reward {written['mean_reward']:.4g} an answer, "
        f"{written['mean_token_reward']:.4g} a token: {args.output_dir}"
    )
    return 0


def filter_demonstrations(argv: Sequence[str]) -> int:
    """Demonstrations in the order of a learned reward; the worst of them shown, the best of them kept."""
    parser = Parser(
        "rlsft filter",
        description="Rank your own demonstrations by a learned reward: a reward model (--reward), or what one "
        "checkpoint has learned beyond another (--policy with --reference). Writes demonstrations.jsonl (all, with "
        "score and percentile), kept.jsonl, worst.md and summary.json.",
        allow_abbrev=False,
    )
    parser.add_argument("--reward", help="folder of a reward model, or of exported token rewards")
    _add_pair(parser, required=False)
    _add_texts(parser)
    parser.add_argument("--output_dir", required=True, help="new folder")
    parser.add_argument("--keep", type=float, default=0.8, help="share of the demonstrations to keep, best first")
    parser.add_argument("--worst", type=int, default=20, help="demonstrations shown in worst.md")
    parser.add_argument(
        "--sum",
        action="store_true",
        help="with --policy: the reward of the whole answer, which grows with length, instead of the mean a token",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    args = parser.parse_args(list(argv))

    from rlsft.data import as_demonstrations
    from rlsft.rewards import check_keep, rank_demonstrations

    check_keep(args.keep)
    _one_reward(args)
    _new_folder(args.output_dir)
    rows = as_demonstrations(load_data(args.data, "test", JobArguments(column_map=args.column_map)), args.data)
    ranked = rank_demonstrations(rows, _scores(args, rows), keep=args.keep, seed=args.seed)
    ranked.save(args.output_dir, worst=args.worst)
    print(ranked.summary_text())
    print(f"written to {args.output_dir}: kept.jsonl trains, worst.md is for reading")
    return 0


def _add_pair(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--policy", required=required, help="folder of the model that has learned; may be an adapter")
    parser.add_argument("--reference", help="folder of the model it is compared with; unset: the adapter's base model")
    parser.add_argument("--beta", type=float, default=0.1, help="scale of the log-ratio")


def _add_texts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="demonstrations: JSONL, JSON, CSV or parquet")
    parser.add_argument("--column_map", help="our=their column names, such as prompt=question,completion=answer")
    parser.add_argument("--max_length", type=int, default=1024, help="tokens of prompt and completion together")
    parser.add_argument("--truncate_prompt", action="store_true", help="drop the oldest tokens of a prompt too long")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--system_prompt")
    parser.add_argument("--pad_token", help="where the tokenizer has none (GPT-2); its end token is safe")
    parser.add_argument("--dtype", default="auto")


def _implicit(args: Any, *, token_level: bool = False) -> Any:
    from rlsft.rewards import ImplicitReward

    return ImplicitReward.from_checkpoints(
        resolve_model(args.policy, args.dtype),
        None if args.reference is None else resolve_model(args.reference, args.dtype),
        dtype=args.dtype, pad_token=args.pad_token, beta=args.beta, token_level=token_level,
        batch_size=args.batch_size, max_length=args.max_length, system_prompt=args.system_prompt,
        truncate_prompt=args.truncate_prompt,
    )  # fmt: skip


def _one_reward(args: Any) -> None:
    if (args.reward is None) == (args.policy is None):
        raise ConfigError(
            "give one reward: --reward FOLDER of a reward model, or --policy FOLDER with --reference FOLDER"
        )
    if args.reward is not None and args.reference is not None:
        raise ConfigError("--reference belongs to --policy; a reward model needs none")
    if args.reward is not None and not Path(args.reward).is_dir():
        raise ConfigError(f"--reward {args.reward}: no such folder")


def _scores(args: Any, rows: Sequence[dict[str, Any]]) -> Any:
    """One number a demonstration, higher = better."""
    from rlsft.models import load_tokenizer
    from rlsft.rewards import ImplicitReward, RewardModel, is_implicit_reward, score_texts

    prompts, completions = [row["prompt"] for row in rows], [row["completion"] for row in rows]
    if args.policy is not None:
        return _implicit(args).score(prompts, completions, per_token=not args.sum)
    if is_implicit_reward(args.reward):
        reward = ImplicitReward.from_pretrained(args.reward, dtype=args.dtype)
        return reward.score(prompts, completions, per_token=not args.sum)
    with _progress("scoring", len(rows)) as on_batch:
        return score_texts(
            RewardModel.from_pretrained(args.reward, dtype=args.dtype),
            load_tokenizer(args.reward, pad_token=args.pad_token),
            prompts, completions, batch_size=args.batch_size, max_length=args.max_length,
            system_prompt=args.system_prompt, truncate_prompt=args.truncate_prompt, on_batch=on_batch,
        )  # fmt: skip


def _new_folder(name: str) -> None:
    folder = Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"--output_dir {folder} exists and is not empty; choose a new folder")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
