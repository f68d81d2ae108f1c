"""`rlsft generate` and `rlsft export`: use a trained model, hand it on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlsft.cli.job import load_data, load_policy, resolve_model
from rlsft.errors import ConfigError, RunError


def run(command: str, argv: Sequence[str]) -> int:
    return generate(argv) if command == "generate" else export(argv)


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one message, exit status 2, the nearest flag named."""

    def error(self, message: str) -> Any:
        raise ConfigError(f"{message}; see {self.prog} --help")


def generate(argv: Sequence[str]) -> int:
    """Answers to prompts from the command line, standard input or a data file."""
    parser = Parser("rlsft generate", description="Answers of a model to prompts.", allow_abbrev=False)
    parser.add_argument("--model", required=True, help="model folder or run directory")
    parser.add_argument("--prompt", action="append", help="a prompt; may be given several times")
    parser.add_argument("--data", help="file with a prompt column (JSONL, JSON, CSV, parquet)")
    parser.add_argument("--column_map", help="our=their column names, such as prompt=question")
    parser.add_argument("--output", help="JSONL file for prompt and completions; default: print")
    parser.add_argument("--num_samples", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.8, help="0 = greedy")
    parser.add_argument("--top_p", type=float, default=0.95)
    parser.add_argument("--max_completion_length", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--system_prompt")
    parser.add_argument("--pad_token", help="where the tokenizer has none (GPT-2); its end token is safe")
    parser.add_argument("--dtype", default="auto", help="auto keeps the folder's own")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(list(argv))

    from rlsft.artifacts import write_jsonl
    from rlsft.data import encode_prompt
    from rlsft.models import load_tokenizer
    from rlsft.rollouts import SamplingParams, TransformersEngine

    prompts = _prompts(args)
    folder = resolve_model(args.model)
    tokenizer = load_tokenizer(folder, pad_token=args.pad_token)
    engine = TransformersEngine(load_policy(folder, args.dtype), tokenizer, batch_size=args.batch_size)
    ids = [encode_prompt(prompt, tokenizer, system_prompt=args.system_prompt) for prompt in prompts]
    sampling = SamplingParams(
        temperature=args.temperature,
        top_p=args.top_p,
        max_new_tokens=args.max_completion_length,
        seed=args.seed,
    )
    drawn = engine.generate(ids, sampling, args.num_samples)
    rows = [
        {
            "prompt": prompt,
            "completions": [tokenizer.decode(c.token_ids, skip_special_tokens=True).strip() for c in completions],
            "sampling": sampling.describe(),
        }
        for prompt, completions in zip(prompts, drawn, strict=True)
    ]
    if args.output:
        write_jsonl(args.output, rows)
        print(f"{len(rows)} prompts answered in {args.output}")
        return 0
    for row in rows:
        print(f"> {row['prompt']}")
        print("\n".join(row["completions"]), end="\n\n")
    return 0


def _prompts(args: argparse.Namespace) -> list[Any]:
    if args.prompt and args.data:
        raise ConfigError("give --prompt or --data, not both")
    if args.prompt:
        return list(args.prompt)
    if args.data:
        from rlsft.cli.job import JobArguments
        from rlsft.data import require_columns

        job = JobArguments(column_map=args.column_map)
        rows = load_data(args.data, "test", job)
        require_columns(rows.column_names, ["prompt"], source=f"--data {args.data}")
        return list(rows["prompt"])
    lines = [line.rstrip("\n") for line in sys.stdin if line.strip()] if not sys.stdin.isatty() else []
    if not lines:
        raise ConfigError("no prompts: give --prompt TEXT, --data FILE or lines on standard input")
    return lines


def export(argv: Sequence[str]) -> int:
    """A plain transformers folder: an adapter merged into its base, or a run's final model copied out."""
    if {"--token-rewards", "--token_rewards"} & set(argv):
        from rlsft.cli.reward_commands import export_rewards

        return export_rewards(argv)
    parser = Parser(
        "rlsft export",
        description="A plain transformers folder.",
        epilog="Rewards of every token instead, read off two checkpoints: rlsft export --token-rewards --help",
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, help="run directory, model folder or adapter folder")
    parser.add_argument("--output", required=True, help="new folder")
    parser.add_argument("--merge", action="store_true", help="merge a LoRA adapter into its base model")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, float16; auto keeps the folder's own")
    args = parser.parse_args(list(argv))

    from rlsft.models import load_tokenizer, merge_lora

    source, target = Path(args.model), Path(args.output)
    if target.exists() and any(target.iterdir()):
        raise RunError(f"--output {target} exists and is not empty; choose a new folder")
    if not source.is_dir():
        raise ConfigError(f"--model {source}: no such folder")
    is_adapter = (source / "adapter_config.json").exists()
    if is_adapter and not args.merge:
        raise ConfigError(f"{source} holds a LoRA adapter; add --merge to merge it into its base model")
    merge_lora(load_policy(str(source), args.dtype)).save_pretrained(target)
    load_tokenizer(str(source)).save_pretrained(target)
    print(f"exported {source} to {target}: AutoModelForCausalLM.from_pretrained({str(target)!r}) loads it")
    return 0
