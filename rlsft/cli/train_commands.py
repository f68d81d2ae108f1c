"""`rlsft sft`, `rlsft reward`, `rlsft ppo`, `rlsft irft`: one trainer on your own data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlsft.cli.job import JobArguments, resolve_model, train_and_eval
from rlsft.cli.parsing import parse
from rlsft.errors import ConfigError

DESCRIPTIONS = {
    "sft": "Supervised fine-tuning on demonstrations.",
    "reward": "Train a reward model on prompt/chosen/rejected rows.",
    "ppo": "Improve a policy with PPO on a reward model.",
    "irft": "Fine-tune on demonstrations against the model's own answers, drawn anew in rounds.",
}


def run(command: str, argv: Sequence[str]) -> int:
    """Parse, load, show (`--dry_run`) or train, save."""
    from rlsft.models import load_tokenizer

    config_class, trainer_class = method_of(command)
    (job, args), flags = parse(command, [JobArguments, config_class], argv, description=DESCRIPTIONS[command])
    job.require("model", *(["reward_model"] if command == "ppo" else []))
    model = resolve_model(job.model, args.dtype)
    train, held_out = train_and_eval(job)
    if flags.dry_run:
        if command == "irft":
            from rlsft.trainers.irft.schedule import plan

            print(plan(args, len(train)))
        dry_run(model, train, args, job)
        return 0
    extra = {"reward_model": resolve_reward(job.reward_model, args)} if command == "ppo" else {}
    trainer = trainer_class(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=load_tokenizer(model, pad_token=job.pad_token),
        **extra,
    )
    return finish(trainer, args)


def method_of(command: str) -> tuple[type, type]:
    """Config and trainer of a command, imported only now: each brings transformers with it."""
    import rlsft.trainers as trainers

    prefix = {"sft": "SFT", "reward": "Reward", "ppo": "PPO", "irft": "IRFT"}[command]
    return getattr(trainers, f"{prefix}Config"), getattr(trainers, f"{prefix}Trainer")


def resolve_reward(name: str, args: Any) -> Any:
    """The folder of a reward model or of exported token rewards, or the user's own `module:function`."""
    if Path(name).is_dir():
        from rlsft.rewards import ImplicitReward, RewardModel, is_implicit_reward

        if is_implicit_reward(name):
            return ImplicitReward.from_pretrained(name, dtype=args.dtype)
        return RewardModel.from_pretrained(name, dtype=args.dtype, attn_implementation=args.attn_implementation)
    if ":" in name:
        from rlsft.evaluation import load_kpi

        return [load_kpi(name).function]
    raise ConfigError(f"--reward_model {name!r}: neither a folder nor module:function")


def finish(trainer: Any, args: Any) -> int:
    """Train, going on from the newest checkpoint in output_dir when there is one; save; evaluate."""
    from rlsft.trainers.base import last_checkpoint
    from rlsft.trainers.run_dir import RunDirectory

    with RunDirectory(args.output_dir) as run:
        run.record(seed=args.seed)
        checkpoint = args.resume_from_checkpoint or last_checkpoint(args.output_dir) is not None
        with run.timed(type(trainer).__name__):
            trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model(args.output_dir)
        trainer.save_state()
        if trainer.eval_dataset is not None:
            run.record(evaluation=trainer.evaluate())
    print(f"saved in {args.output_dir}")
    return 0


def dry_run(model: str, train: Any, args: Any, job: JobArguments) -> int:
    """Decoded examples with their loss mask, lengths, what would be cut, memory and time; trains nothing.

    Returns:
        Tokens of the longest sequence that training would see.
    """
    from rich.console import Console

    from rlsft.data import preview
    from rlsft.models import estimate_training, load_tokenizer

    console = Console()
    tokenizer = load_tokenizer(model, pad_token=job.pad_token)
    shown = preview(
        train,
        tokenizer,
        max_length=args.max_length or 1024,
        system_prompt=args.system_prompt,
        truncate_prompt=args.truncate_prompt,
    )
    console.print(shown)
    longest = min(args.max_length or 1024, shown.longest)
    console.print(
        estimate_training(
            model,
            batch_size=getattr(args, "sequences_per_batch", args.per_device_train_batch_size),
            sequence_length=longest,
            lora_r=args.lora_r if args.use_peft else None,
            dtype=args.dtype,
            gradient_checkpointing=bool(args.gradient_checkpointing),
            num_examples=min(len(train), getattr(args, "sft_max_examples", 0) or len(train)),
            num_epochs=_passes(args),
        )
    )
    return longest


def _passes(args: Any) -> float:
    """Over the training rows, by whatever name the method has for them; an IRFT pair counts as two rows elsewhere."""
    own = getattr(args, "passes_over_data", None)
    return getattr(args, "sft_num_train_epochs", args.num_train_epochs) if own is None else 2 * own
