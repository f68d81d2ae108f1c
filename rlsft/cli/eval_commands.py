"""`rlsft eval`, `rlsft report` and `rlsft plot`: look at what a run did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlsft.cli.job import JobArguments, load_data, load_policy, resolve_model
from rlsft.cli.measure_commands import add_arguments, measure_pairs, measure_suite
from rlsft.cli.model_commands import Parser
from rlsft.errors import ConfigError


def run(command: str, argv: Sequence[str]) -> int:
    return {"eval": evaluate, "report": report, "plot": plot}[command](argv)


def evaluate(argv: Sequence[str]) -> int:
    """Two models on the same held-out prompts, or models one by one with `--pairs` or `--suite`."""
    args = _eval_parser().parse_args(list(argv))
    if args.pairs is not None and args.suite is not None:
        raise ConfigError("give --pairs or --suite, not both")
    if args.pairs is not None:
        return measure_pairs(args)
    if args.suite is not None:
        return measure_suite(args)
    missing = [name for name in ("before", "after", "data") if getattr(args, name) is None]
    if missing:
        raise ConfigError(
            f"--{missing[0]} is required to compare two models (--before, --after, --data); one model is measured "
            "with --pairs FILE or --suite NAME; see rlsft eval --help"
        )
    return _compare(args)


def _eval_parser() -> Parser:
    parser = Parser(
        "rlsft eval",
        description="Compare two models on held-out demonstrations (--before, --after, --data), or measure models one "
        "by one: --pairs FILE (how much likelier the chosen answers are), --suite NAME (benchmarks).",
        allow_abbrev=False,
    )
    parser.add_argument("--before", help="folder of the first model")
    parser.add_argument("--after", help="folder of the second model")
    parser.add_argument("--data", help="held-out rows with prompt and completion")
    parser.add_argument("--column_map", help="our=their column names")
    parser.add_argument("--reward_model", help="folder of a reward model that scores the answers")
    parser.add_argument("--kpi", help="module:function, your own score of an answer")
    parser.add_argument("--language", default="en", help="en, ja or zh")
    parser.add_argument("--num_prompts", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.8, help="0 = greedy")
    parser.add_argument("--top_p", type=float, default=0.95)
    parser.add_argument("--max_completion_length", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--system_prompt")
    parser.add_argument("--pad_token", help="where the tokenizer has none (GPT-2); its end token is safe")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", required=True, help="folder for what is measured, as JSON and Markdown")
    add_arguments(parser)
    return parser


def _compare(args: Any) -> int:
    """Two models on the same held-out prompts: table with intervals, verdicts, files."""
    from rich.console import Console

    from rlsft.artifacts import write_json, write_text
    from rlsft.evaluation import compare, load_kpi, write_generations
    from rlsft.trainers.chain.rows import demonstrations, held_out_prompts

    kpi = load_kpi(args.kpi) if args.kpi else None  # a typo costs a second here and minutes after sampling
    data = load_data(args.data, "test", JobArguments(column_map=args.column_map))
    rows = held_out_prompts(demonstrations(data, "--data"), args.num_prompts, args.seed)
    answers = [_answers(args, label, getattr(args, label), rows) for label in ("before", "after")]
    table = compare(*answers, language=args.language, kpi=kpi, seed=args.seed)
    folder = Path(args.output_dir)
    write_generations(folder / "generations.jsonl", [*answers[0], *answers[1]])
    write_json(folder / "table.json", table.to_json())
    write_text(folder / "table.md", table.to_markdown())
    Console().print(table.to_rich())
    print(f"written to {folder}")
    return 0


def _answers(args: Any, label: str, model: str, rows: Sequence[dict[str, Any]]) -> Sequence[Any]:
    from rlsft.evaluation import sample_answers
    from rlsft.models import load_tokenizer
    from rlsft.rewards import RewardModel, score_texts
    from rlsft.rollouts import SamplingParams, TransformersEngine

    folder = resolve_model(model)
    tokenizer = load_tokenizer(folder, pad_token=args.pad_token)
    prompts = [row["prompt"] for row in rows]
    drawn = sample_answers(
        TransformersEngine(load_policy(folder, args.dtype), tokenizer, batch_size=args.batch_size),
        tokenizer,
        prompts,
        model=label,
        sampling=SamplingParams(
            temperature=args.temperature,
            top_p=args.top_p if args.temperature > 0 else 1.0,
            max_new_tokens=args.max_completion_length,
            seed=args.seed,
        ),
        references=[row["references"] for row in rows],
        system_prompt=args.system_prompt,
    )
    if args.reward_model is None:
        return drawn.generations
    if not Path(args.reward_model).is_dir():
        raise ConfigError(f"--reward_model {args.reward_model}: no such folder")
    scores = score_texts(
        RewardModel.from_pretrained(args.reward_model),
        load_tokenizer(args.reward_model),
        prompts,
        [generation.completion for generation in drawn.generations],
        batch_size=args.batch_size,
        system_prompt=args.system_prompt,
    )
    return drawn.with_values(reward=scores).generations


def report(argv: Sequence[str]) -> int:
    """One self-contained HTML page about a run."""
    parser = Parser("rlsft report", description="One HTML page about a run.", allow_abbrev=False)
    parser.add_argument("run_dir", help="output_dir of a run")
    parser.add_argument("--price_per_hour", type=float, help="what an hour of this machine costs you")
    parser.add_argument("--price_per_label", type=float, help="what one human comparison of two answers costs you")
    parser.add_argument("--currency", default="USD")
    args = parser.parse_args(list(argv))

    from rlsft.evaluation import build_report

    path = build_report(
        _run_dir(args.run_dir),
        price_per_hour=args.price_per_hour,
        price_per_label=args.price_per_label,
        currency=args.currency,
    )
    print(f"written: {path}")
    return 0


def plot(argv: Sequence[str]) -> int:
    """Curves, ranks and intervals of a run as SVG and PNG files."""
    parser = Parser("rlsft plot", description="Plots of a run, no tracker needed.", allow_abbrev=False)
    parser.add_argument("run_dir", help="output_dir of a run")
    args = parser.parse_args(list(argv))

    from rlsft.evaluation import plot_run

    for path in plot_run(_run_dir(args.run_dir)):
        print(path)
    return 0


def _run_dir(name: str) -> Path:
    path = Path(name)
    if not path.is_dir():
        raise ConfigError(f"{name}: no such run directory")
    return path
