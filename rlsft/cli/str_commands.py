"""`rlsft str` on your data and `rlsft demo` on the demo package's dialogues: the same chain with other defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlsft.cli.chain_run import ChainCommand
from rlsft.errors import ConfigError

# The main job, sized for ten minutes on two CPU cores. LoRA in bfloat16 on a 135M model; eager attention because it
# trains short sequences 1.3 times as fast as sdpa on the CPU (docs/LOG.md).
DEMO_DEFAULTS: dict[str, Any] = {
    "model": "smollm2",
    "train_data": "chitchat",
    "encoder": "minilm",
    "output_dir": "runs/demo",
    "dtype": "bfloat16",
    "attn_implementation": "eager",
    "use_peft": True,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "max_length": 96,
    "truncate_prompt": True,
    "max_completion_length": 32,
    "system_prompt": "Chat like a friendly person.",
    "logging_steps": 2,
    "show_progress": True,
}
DEMO_SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "limit": 4000,
        "sft_max_examples": 512,
        "sft_learning_rate": 4e-4,
        "per_device_train_batch_size": 16,
        "sample_prompts": 160,
        "samples_per_prompt": 8,
        "reward_num_train_epochs": 1,
        "reward_learning_rate": 2e-4,
        "max_pairs_per_prompt": 3,
        "ppo_episodes": 320,
        "ppo_batch_size": 64,
        "ppo_learning_rate": 3e-4,
        "ppo_epochs": 2,
        "ppo_mini_batches": 2,
        "kl_coef": 0.1,
        "missing_eos_penalty": 0.02,
        "eval_prompts": 96,
        "agreement_prompts": 200,
    },
    "full": {
        "sft_max_examples": 20000,
        "sft_learning_rate": 2e-4,
        "per_device_train_batch_size": 32,
        "sample_prompts": 1024,
        "samples_per_prompt": 16,
        "reward_num_train_epochs": 2,
        "reward_learning_rate": 1e-4,
        "ppo_episodes": 16384,
        "ppo_batch_size": 128,
        "ppo_learning_rate": 5e-5,
        "ppo_epochs": 2,
        "ppo_mini_batches": 2,
        "kl_coef": 0.1,
        "missing_eos_penalty": 0.02,
        "eval_prompts": 512,
    },
}


def run(command: str, argv: Sequence[str]) -> int:
    return run_demo(argv) if command == "demo" else run_str(argv)


def run_demo(argv: Sequence[str]) -> int:
    """`--size small|full` picks the preset; every other flag is one of `rlsft str` and wins over it."""
    size, rest = _take_size(list(argv))
    description = (
        "The main job on real human dialogues: SFT, samples, TextRank + ISODATA ranking, reward model, PPO, "
        "evaluation. --size small (default) fits ten minutes on two CPU cores, --size full is for a long run."
    )
    return _run("demo", rest, DEMO_DEFAULTS | DEMO_SIZES[size], description)


def run_str(argv: Sequence[str]) -> int:
    """The chain on the user's own model and data."""
    return _run("str", argv, {}, "SFT -> sample -> rank -> reward model -> PPO -> evaluation on your demonstrations.")


def _run(command: str, argv: Sequence[str], defaults: Mapping[str, Any], description: str) -> int:
    from rlsft.trainers.str.config import STRConfig
    from rlsft.trainers.str.evaluation import summary_renderables
    from rlsft.trainers.str.trainer import STRTrainer

    chain = ChainCommand(command, description, STRConfig, STRTrainer, summary_renderables, defaults=defaults)
    return chain.run(argv)


def _take_size(argv: list[str]) -> tuple[str, list[str]]:
    rest: list[str] = []
    size = "small"
    words = iter(argv)
    for word in words:
        if word == "--size":
            size = next(words, "")
        elif word.startswith("--size="):
            size = word.split("=", 1)[1]
        else:
            rest.append(word)
    if size not in DEMO_SIZES:
        raise ConfigError(f"--size must be one of {list(DEMO_SIZES)}, got {size!r}")
    return size, rest
