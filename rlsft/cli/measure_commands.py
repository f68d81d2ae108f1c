"""`rlsft eval --pairs` and `rlsft eval --suite`: models measured one by one, without drawing answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rlsft.cli.job import JobArguments, load_data, load_policy, resolve_model
from rlsft.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of both, in groups of their own."""
    shared = parser.add_argument_group("--pairs and --suite")
    shared.add_argument("--model", action="append", help="folder of a model; may be given several times")
    shared.add_argument("--max_length", type=int, help="tokens of prompt and answer; unset: 1024, or the context")
    pairs = parser.add_argument_group("log-probability gap")
    pairs.add_argument("--pairs", help="rows of prompt, chosen and rejected: how much likelier is chosen?")
    pairs.add_argument("--per_token", action="store_true", help="mean over the tokens of an answer, not their sum")
    suite = parser.add_argument_group("benchmark suites (lm-evaluation-harness)")
    suite.add_argument("--suite", help="leaderboard (mmlu with 5 examples), paper (with 1) or local (your own files)")
    suite.add_argument("--task", action="append", help="local: JSONL, JSON or YAML file of questions; several times")
    suite.add_argument("--num_fewshot", type=int, help="local: examples before a question, instead of the file's own")
    suite.add_argument("--limit", type=int, help="the first so many questions of a task, for a quick look")
    template = suite.add_mutually_exclusive_group()
    template.add_argument("--chat_template", action="store_true", default=None, help="write questions as chats")
    template.add_argument("--no_chat_template", action="store_false", dest="chat_template")


def measure_pairs(args: Any) -> int:
    """Gap, accuracy and both sides of every model; the change of the gap from the first one."""
    from rlsft.artifacts import write_json
    from rlsft.data import require_columns
    from rlsft.evaluation import logprob_gap
    from rlsft.models import load_tokenizer

    data = load_data(args.pairs, "test", JobArguments(column_map=args.column_map))
    require_columns(data.column_names, ["chosen", "rejected"], source=f"--pairs {args.pairs}")
    rows, found = data.to_list(), []
    for name in _models(args):
        folder = resolve_model(name, args.dtype)
        gap = logprob_gap(
            load_policy(folder, args.dtype), load_tokenizer(folder, pad_token=args.pad_token), rows,
            batch_size=args.batch_size, max_length=args.max_length or 1024, system_prompt=args.system_prompt,
            per_token=args.per_token, seed=args.seed,
        )  # fmt: skip
        found.append(gap)
        unit = "nats a token" if args.per_token else "nats"
        line = (
            f"{name}: gap {gap.gap.format(2)} {unit}, chosen likelier in {gap.accuracy.format(3)} of {gap.gap.n} pairs"
        )
        if len(found) > 1:
            line += f"; gap {gap.change_from(found[0], seed=args.seed).format(2)} against {_models(args)[0]}"
        print(line)
    written = [{"model": name, **gap.to_json()} for name, gap in zip(_models(args), found, strict=True)]
    for entry, gap in zip(written[1:], found[1:], strict=True):
        change = gap.change_from(found[0], seed=args.seed)
        entry["change"] = {"mean": change.mean, "low": change.low, "high": change.high}
    write_json(Path(args.output_dir) / "logprob_gap.json", written)
    print(f"written to {args.output_dir}")
    return 0


def measure_suite(args: Any) -> int:
    """Every task of a suite on one model."""
    from rlsft.evaluation import read_local_task, run_suite
    from rlsft.models import load_tokenizer, merge_lora

    models = _models(args)
    if len(models) > 1:
        raise ConfigError("--suite takes one --model and one --output_dir at a time")
    folder = resolve_model(models[0], args.dtype)
    result = run_suite(
        args.suite,
        lambda: merge_lora(load_policy(folder, args.dtype)),
        load_tokenizer(folder, pad_token=args.pad_token),
        name=models[0], tasks=[read_local_task(path) for path in args.task or []], num_fewshot=args.num_fewshot,
        limit=args.limit, batch_size=args.batch_size, max_length=args.max_length, chat_template=args.chat_template,
        output_dir=args.output_dir, seed=args.seed,
    )  # fmt: skip
    print(result.to_markdown())
    print(f"written to {args.output_dir}")
    return 0


def _models(args: Any) -> list[str]:
    if not args.model:
        raise ConfigError("--model is required with --pairs and --suite: folder of a model")
    return args.model
