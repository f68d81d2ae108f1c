"""Settings of `IRFTTrainer`: TRL's names where its DPO and online trainers have one, checked when built."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from rlsft.errors import ConfigError
from rlsft.objectives.pair_losses import check_pair_loss
from rlsft.rollouts import SamplingParams
from rlsft.trainers.arguments import RlsftArguments, at_least, between, one_of
from rlsft.trainers.irft.presets import released_code_settings, spin_settings

REFRESHES = ("shards", "full", "per_step", "adaptive", "none")


@dataclass
class IRFTConfig(RlsftArguments):
    """Configuration of `IRFTTrainer` (arXiv 2405.17888, Alg. 2): T rounds of K optimizer steps.

    A round draws answers from the policy as it is, notes the log-probabilities of demonstrations and answers under the
    reference, and takes K steps on the pairs. `max_steps` follows from `rounds` and `epochs_per_round` (or
    `steps_per_round`); setting it ends the run earlier. An optimizer step learns from `per_device_train_batch_size *
    gradient_accumulation_steps * ranks` pairs.

    Raises:
        ConfigError: a value is out of range or two settings contradict each other; the message names the field.
    """

    learning_rate: float = field(default=1e-6, metadata={"help": "Peak learning rate. LoRA likes 1e-5 to 2e-4."})
    logging_steps: float = field(
        default=1, metadata={"help": "Log every so many optimizer steps; below 1 it is a share of all steps."}
    )
    disable_dropout: bool = field(
        default=True,
        metadata={"help": "Set every dropout to 0. With dropout the first loss of a round is not log 2."},
    )

    # -- rounds
    rounds: int = field(default=5, metadata={"help": "T: times that answers are drawn anew. 1 is SPIN's iteration."})
    epochs_per_round: float = field(
        default=2.0, metadata={"help": "Passes over a round's pairs; K, the steps of a round, follows from it."}
    )
    steps_per_round: int | None = field(
        default=None, metadata={"help": "K directly; it takes the place of epochs_per_round."}
    )
    refresh: Literal["shards", "full", "per_step", "adaptive", "none"] = field(
        default="shards",
        metadata={
            "help": "shards: the data in `rounds` disjoint parts, one a round; full: all prompts answered anew each "
            "round; per_step: each step draws its answers anew with refresh_probability; adaptive: a new round when "
            "adaptive_kl or adaptive_accuracy is passed; none: given pairs (chosen, rejected), which is DPO."
        },
    )
    prompts_per_round: int | None = field(
        default=None, metadata={"help": "Prompts answered in a round. Unset: all of the data, or of the shard."}
    )
    refresh_probability: float = field(
        default=0.5, metadata={"help": "per_step: how often a step draws its answers anew, from the current policy."}
    )
    adaptive_kl: float = field(
        default=10.0, metadata={"help": "adaptive: nats an answer between generator and policy that end a round."}
    )
    adaptive_accuracy: float = field(
        default=0.95, metadata={"help": "adaptive: share of pairs told apart by the reward that ends a round."}
    )
    adaptive_window: int = field(default=8, metadata={"help": "adaptive: steps over which both are averaged."})
    replay_rounds: int = field(
        default=0, metadata={"help": "Earlier rounds whose answers are learned from again, under the new reference."}
    )
    reference: Literal["previous", "initial"] = field(
        default="previous",
        metadata={
            "help": "previous: the policy as the round begins, no second copy of the weights; initial: the policy as "
            "the run begins (below a fresh adapter, or a frozen copy where one is needed)."
        },
    )
    optimizer_per_round: Literal["restart", "carry"] = field(
        default="restart",
        metadata={
            "help": "restart: every round begins with an empty optimizer state and its own warm-up and decay; carry: "
            "both run through."
        },
    )

    # -- loss
    loss_type: str = field(
        default="logistic",
        metadata={
            "help": "logistic, linear, hinge, bernoulli, kliep (fused); brier, abs_hinge, lsif, nce; a name given to "
            "register_pair_loss; or module:function(delta_real, delta_generated, *, beta, offset)."
        },
    )
    beta: float = field(
        default=0.1,
        metadata={"help": "Factor of the log-ratios. Below 0.5 it relies on few steps a round (K)."},
    )
    offset: float = field(
        default=0.0, metadata={"help": "Added to each scaled log-ratio; losses that only see a difference refuse it."}
    )
    label_smoothing: float = field(
        default=0.0, metadata={"help": "Share of the pairs taken to be the wrong way round (logistic)."}
    )
    nce_mu: float = field(default=1.0, metadata={"help": "nce: drawn answers to a demonstration."})
    normalize_length: bool = field(default=False, metadata={"help": "Log-ratios a token instead of sums."})
    sft_coef: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the demonstrations' NLL (summed over tokens, as the log-ratios are), which keeps their "
            "log-probability from falling. The logistic loss itself starts with beta / 2 of it."
        },
    )
    logits_memory_mb: int = field(
        default=128,
        metadata={"help": "MiB of logits that a step keeps for its backward instead of computing them again."},
    )

    # -- drawing
    samples_per_prompt: int = field(default=1, metadata={"help": "Answers to each prompt; its prefill is shared."})
    max_completion_length: int = field(default=128, metadata={"help": "Most tokens of a drawn answer."})
    temperature: float = field(
        default=1.0,
        metadata={"help": "1 draws from the policy itself; 0 is greedy. Both sides are scored at the same one."},
    )
    top_p: float = field(default=1.0, metadata={"help": "Nucleus of the draws; 1 = all tokens."})
    top_k: int = field(default=0, metadata={"help": "Likeliest tokens kept in the draws; 0 = all tokens."})
    generation_batch_size: int = field(default=64, metadata={"help": "Answers decoded together, per rank."})
    generation_template: str | None = field(
        default=None,
        metadata={
            "help": "Text with {prompt} from which answers are drawn instead of the training template. The released "
            "code does that; it makes the draws off-template, so leave it unset."
        },
    )
    eval_prompts: int = field(
        default=64,
        metadata={
            "help": "Held-out prompts answered as a round begins, for the reward accuracy of evaluate(); 0 = none."
        },
    )

    @classmethod
    def spin(cls, output_dir: str | os.PathLike[str], **changes: Any) -> IRFTConfig:
        """One iteration of SPIN (arXiv 2401.01335): every prompt answered once, logistic loss, previous policy.

        Its published four iterations are four such runs, each from the result of the last one; `rounds=4,
        replay_rounds=1` does them in one.

        Args:
            output_dir: of the run.
            changes: settings that take the place of the preset's.
        """
        return cls(os.fspath(output_dir), **{**spin_settings(), **changes})

    @classmethod
    def released_code(cls, output_dir: str | os.PathLike[str], **changes: Any) -> IRFTConfig:
        """The choices of the code released with arXiv 2405.17888, defects included where a setting can name them.

        See `presets.py` for each choice and its reason, and for what is left out.

        Args:
            output_dir: of the run.
            changes: settings that take the place of the preset's.
        """
        return cls(os.fspath(output_dir), **{**released_code_settings(), **changes})

    def __post_init__(self) -> None:
        self._check_rounds()
        self._check_refresh()
        self._check_loss()
        self._check_drawing()
        super().__post_init__()

    def _check_rounds(self) -> None:
        at_least("rounds", self.rounds, 1, "answers are drawn at least once")
        at_least("steps_per_round", self.steps_per_round, 1, "a round learns something", optional=True)
        at_least("prompts_per_round", self.prompts_per_round, 1, "a round has pairs", optional=True)
        at_least("replay_rounds", self.replay_rounds, 0, "it is a count")
        one_of("reference", self.reference, ("previous", "initial"))
        one_of("optimizer_per_round", self.optimizer_per_round, ("restart", "carry"))
        if not self.epochs_per_round > 0:
            raise ConfigError(f"epochs_per_round must be > 0, got {self.epochs_per_round!r}: a round learns something")
        if self.num_train_epochs != 3.0:  # transformers' default
            raise ConfigError(
                f"num_train_epochs={self.num_train_epochs!r} has no meaning here: set rounds and epochs_per_round "
                "(passes over a round's pairs)"
            )

    def _check_refresh(self) -> None:
        one_of("refresh", self.refresh, REFRESHES)
        between("refresh_probability", self.refresh_probability, 0.0, 1.0)
        between("adaptive_accuracy", self.adaptive_accuracy, 0.0, 1.0)
        at_least("adaptive_window", self.adaptive_window, 1, "it is a number of steps")
        if not self.adaptive_kl > 0:
            raise ConfigError(f"adaptive_kl must be > 0 nats, got {self.adaptive_kl!r}: a round begins at 0")
        if self.refresh == "none" and (self.rounds != 1 or self.replay_rounds):
            raise ConfigError(
                f"refresh='none' draws nothing, so there is one round: set rounds=1 and replay_rounds=0 (got "
                f"{self.rounds} and {self.replay_rounds})"
            )
        if self.refresh == "per_step" and self.replay_rounds:
            raise ConfigError(
                "replay_rounds must be 0 with refresh='per_step': its answers are of mixed age already; "
                "lower refresh_probability to use them longer"
            )

    def _check_loss(self) -> None:
        check_pair_loss(self.loss_type)
        between("label_smoothing", self.label_smoothing, 0.0, 0.5)
        at_least("sft_coef", self.sft_coef, 0, "it weighs a part of the loss")
        at_least("logits_memory_mb", self.logits_memory_mb, 0, "it is an amount of memory")
        for name in ("beta", "nce_mu"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)!r}")
        if self.label_smoothing and self.loss_type != "logistic":
            raise ConfigError(f"label_smoothing needs loss_type='logistic', got {self.loss_type!r}")
        if self.offset and self.loss_type in ("logistic", "linear", "hinge", "nce"):
            raise ConfigError(
                f"offset must be 0 with loss_type={self.loss_type!r}, got {self.offset!r}: no effect there"
            )

    def _check_drawing(self) -> None:
        at_least("samples_per_prompt", self.samples_per_prompt, 1, "every prompt is answered")
        at_least("generation_batch_size", self.generation_batch_size, 1, "it counts answers")
        at_least("eval_prompts", self.eval_prompts, 0, "it is a count")
        self.sampling()  # its own checks
        if self.generation_template is not None and "{prompt}" not in self.generation_template:
            raise ConfigError(f"generation_template must contain {{prompt}}, got {self.generation_template!r}")

    def sampling(self, seed: int = 0, prompt_offset: int = 0) -> SamplingParams:
        """How answers are drawn; the record of it travels with them."""
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_new_tokens=self.max_completion_length,
            seed=seed,
            prompt_offset=prompt_offset,
        )

    @property
    def sequences_per_batch(self) -> int:
        """Sequences of a forward pass: both sides of a micro-batch's pairs."""
        return 2 * self.per_device_train_batch_size

    @property
    def passes_over_data(self) -> float:
        """Passes over the demonstrations of the whole run, as far as settings tell."""
        return self.epochs_per_round * self.samples_per_prompt * (1 if self.refresh == "shards" else self.rounds)

    @property
    def pairs_per_step(self) -> int:
        """Pairs of an optimizer step over all ranks."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size
