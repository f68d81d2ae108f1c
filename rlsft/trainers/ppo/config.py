"""Settings of `PPOTrainer`: TRL's names where TRL's PPO and GRPO have one, checked when built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rlsft.errors import ConfigError
from rlsft.trainers.arguments import RlsftArguments, at_least, between, one_of


@dataclass
class PPOConfig(RlsftArguments):
    """Configuration of `PPOTrainer`.

    One iteration draws `rollout_batch_size` answers and takes `num_ppo_epochs * num_mini_batches` optimizer steps on
    them; every optimizer step is one `global_step`, so logging, saving and schedules count as in any other trainer.

    Raises:
        ConfigError: a value is out of range or two settings contradict each other; the message names the field.
    """

    learning_rate: float = field(
        default=3e-6, metadata={"help": "Peak learning rate of AdamW. LoRA likes 1e-5 to 2e-4."}
    )
    logging_steps: float = field(
        default=1, metadata={"help": "Log every so many optimizer steps; below 1 it is a share of all steps."}
    )
    disable_dropout: bool = field(
        default=True,
        metadata={"help": "Set every dropout to 0. With dropout the first ratio is not 1 and the first KL is not 0."},
    )

    # -- rollouts
    rollout_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Answers an iteration, over all ranks; gradient_accumulation_steps follows from it. Unset: "
            "per_device_train_batch_size * gradient_accumulation_steps * num_mini_batches * ranks."
        },
    )
    total_episodes: int | None = field(
        default=None,
        metadata={"help": "Answers drawn in all. Unset: num_train_epochs * prompts * samples_per_prompt."},
    )
    samples_per_prompt: int = field(
        default=1, metadata={"help": "Answers drawn for each prompt; its prefill is shared."}
    )
    temperature: float = field(
        default=1.0, metadata={"help": "Sampling temperature; 1 is the policy itself. Scoring uses the same one."}
    )
    top_p: float = field(default=1.0, metadata={"help": "Nucleus of the rollouts; 1 = all tokens (unbiased ratios)."})
    top_k: int = field(default=0, metadata={"help": "Likeliest tokens kept in rollouts; 0 = all (unbiased ratios)."})
    allow_biased_sampling: bool = field(
        default=False,
        metadata={"help": "Accept top_p < 1 or top_k > 0, whose importance ratios are biased."},
    )
    max_completion_length: int = field(default=64, metadata={"help": "Most tokens of an answer."})
    response_length: int | None = field(
        default=None, metadata={"help": "Another name of max_completion_length, as in TRL's PPO."}
    )
    truncate_prompt: bool = field(
        default=True,
        metadata={
            "help": "Cut the oldest tokens of a prompt that, with its answer, exceeds max_length. Off: an error."
        },
    )
    stop_token: str | None = field(
        default=None,
        metadata={"help": "Text of the token that ends an answer. Unset or eos: the model's own end tokens."},
    )
    generation_batch_size: int = field(default=64, metadata={"help": "Answers decoded together, per rank."})
    local_rollout_forward_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Answers scored together, per rank. Unset: per_device_train_batch_size, in the first epoch's own "
            "micro-batches, which makes the first ratio exactly 1."
        },
    )

    # -- reward
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "One weight a reward function. Unset: all 1."}
    )
    missing_eos_penalty: float | None = field(
        default=None, metadata={"help": "Subtracted from the score of an answer that was cut off by length."}
    )
    score_clip: float | None = field(
        default=None, metadata={"help": "Scores are cut to +- this before whitening. Unset: not cut."}
    )
    whiten_scores: bool = field(
        default=False,
        metadata={"help": "Scores of an iteration to mean 0, deviation 1: gives kl_coef a meaning without scale."},
    )
    whiten_by_prompt: bool = field(
        default=False,
        metadata={"help": "Let whiten_scores compare only answers to one prompt, whose scores share a scale."},
    )
    whiten_rewards: bool = field(
        default=False, metadata={"help": "Token rewards of an iteration to deviation 1; the mean stays."}
    )

    # -- KL to the reference
    kl_coef: float = field(default=0.05, metadata={"help": "Weight of the KL in the token reward (at the start)."})
    kl_estimator: Literal["k1", "k2", "k3"] = field(
        default="k1", metadata={"help": "Token estimate of the KL in the reward (Schulman 2020). k1 is unbiased."}
    )
    kl_ctrl: Literal["fixed", "adaptive"] = field(
        default="fixed", metadata={"help": "adaptive steers kl_coef so that the KL goes to kl_target."}
    )
    kl_target: float = field(default=6.0, metadata={"help": "Nats an answer that the adaptive controller aims at."})
    kl_horizon: float = field(
        default=10_000, metadata={"help": "Answers over which the adaptive controller reacts; smaller is quicker."}
    )

    # -- advantages and loss
    advantage: Literal["gae", "rloo"] = field(
        default="gae",
        metadata={"help": "gae: a value model; rloo: the mean of the prompt's other answers, no value model."},
    )
    policy_loss: Literal["clip", "apa"] = field(
        default="clip",
        metadata={
            "help": "clip: PPO's clipped ratio. apa: the squared regression (log pi - log pi_ref - A / kl_coef)^2 of "
            "arXiv 2306.02231; the KL is then in the loss, not in the reward."
        },
    )
    num_ppo_epochs: int = field(default=4, metadata={"help": "Passes over the answers of an iteration."})
    num_mini_batches: int = field(default=1, metadata={"help": "Optimizer steps a pass."})
    cliprange: float = field(default=0.2, metadata={"help": "Clip range of the probability ratio."})
    cliprange_value: float | None = field(
        default=0.2, metadata={"help": "Clip range of the value; unset: not clipped."}
    )
    dual_clip: float | None = field(
        default=None, metadata={"help": "Bound on the ratio where the advantage is negative, above 1. Unset: none."}
    )
    vf_coef: float = field(default=0.1, metadata={"help": "Weight of the value loss."})
    entropy_coef: float = field(default=0.0, metadata={"help": "Weight of the entropy bonus."})
    logits_memory_mb: int = field(
        default=128,
        metadata={"help": "MiB of logits that an update keeps for its backward instead of computing them again."},
    )
    gamma: float = field(default=1.0, metadata={"help": "Discount a token."})
    lam: float = field(default=0.95, metadata={"help": "Lambda of generalised advantage estimation."})
    whiten_advantages: bool = field(
        default=True, metadata={"help": "Advantages of an iteration to mean 0, deviation 1."}
    )
    importance_correction: Literal["none", "truncate", "mask"] = field(
        default="none",
        metadata={
            "help": "For an engine whose log-probabilities differ from ours: weigh tokens by the ratio of the two, "
            "cut at importance_cap (truncate), or drop those above it (mask)."
        },
    )
    importance_cap: float = field(default=2.0, metadata={"help": "Largest importance weight of a token."})
    ratio_threshold: float | None = field(
        default=10.0,
        metadata={"help": "Skip, and count, a step whose mean probability ratio exceeds this. Unset: never."},
    )

    # -- value model
    value_model: Literal["shared", "separate"] = field(
        default="shared",
        metadata={"help": "shared: a head on the policy's hidden states; separate: a model of its own."},
    )
    value_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the value model. Unset: learning_rate."}
    )

    # -- what a person sees
    num_sample_generations: int = field(
        default=10,
        metadata={"help": "Times in a run that answers to eval prompts are written to completions/; 0 = never."},
    )
    log_completions: bool = field(
        default=False, metadata={"help": "Write every iteration's answers with their scores to completions/."}
    )

    gradient_accumulation_steps: int = field(
        default=1,
        metadata={"help": "Micro-batches an optimizer step. Follows from rollout_batch_size where that is set."},
    )

    def __post_init__(self) -> None:
        if self.response_length is not None:
            self.max_completion_length = self.response_length
        self._check_rollouts()
        self._check_loss()
        super().__post_init__()
        self._settle_batch()

    def _check_rollouts(self) -> None:
        at_least("max_completion_length", self.max_completion_length, 1, "an answer has at least one token")
        at_least("samples_per_prompt", self.samples_per_prompt, 1, "every prompt is answered")
        at_least("total_episodes", self.total_episodes, 1, "nothing would be drawn", optional=True)
        at_least("rollout_batch_size", self.rollout_batch_size, 1, "nothing would be drawn", optional=True)
        at_least("generation_batch_size", self.generation_batch_size, 1, "it counts answers")
        chunk = self.local_rollout_forward_batch_size
        at_least("local_rollout_forward_batch_size", chunk, 1, "it counts answers", optional=True)
        at_least("num_sample_generations", self.num_sample_generations, 0, "it is a count")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be > 0 to explore, got {self.temperature!r}")
        between("top_p", self.top_p, 0.0, 1.0)
        at_least("top_k", self.top_k, 0, "0 keeps every token")
        if (self.top_p < 1 or self.top_k > 0) and not self.allow_biased_sampling:
            raise ConfigError(
                f"top_p={self.top_p} and top_k={self.top_k} truncate the rollouts: tokens are then drawn from another "
                "distribution than the one in the ratio, which biases PPO. Use top_p=1 and top_k=0, or accept it with "
                "allow_biased_sampling=True."
            )

    def _check_loss(self) -> None:
        one_of("kl_estimator", self.kl_estimator, ("k1", "k2", "k3"))
        one_of("kl_ctrl", self.kl_ctrl, ("fixed", "adaptive"))
        one_of("advantage", self.advantage, ("gae", "rloo"))
        one_of("policy_loss", self.policy_loss, ("clip", "apa"))
        if self.policy_loss == "apa" and not (self.kl_coef > 0 and self.kl_ctrl == "fixed"):
            raise ConfigError(
                f"policy_loss='apa' regresses on A / kl_coef: kl_coef must be > 0 and kl_ctrl 'fixed', got "
                f"{self.kl_coef!r} and {self.kl_ctrl!r}"
            )
        one_of("value_model", self.value_model, ("shared", "separate"))
        one_of("importance_correction", self.importance_correction, ("none", "truncate", "mask"))
        at_least("num_ppo_epochs", self.num_ppo_epochs, 1, "every answer is learned from")
        at_least("num_mini_batches", self.num_mini_batches, 1, "every answer is learned from")
        at_least("kl_coef", self.kl_coef, 0, "a negative weight would push the policy away from the reference")
        for name in ("cliprange", "gamma", "lam"):
            between(name, getattr(self, name), 0.0, 1.0)
        at_least("logits_memory_mb", self.logits_memory_mb, 0, "it is an amount of memory")
        for name in ("vf_coef", "entropy_coef"):
            at_least(name, getattr(self, name), 0, "it weighs a part of the loss")
        at_least("dual_clip", self.dual_clip, 1.000001, "it bounds a ratio above 1", optional=True)
        at_least("ratio_threshold", self.ratio_threshold, 1, "ratios start at 1", optional=True)
        for name in ("kl_target", "kl_horizon", "importance_cap", "cliprange_value", "score_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be > 0, got {value!r}")
        if self.missing_eos_penalty is not None:
            at_least("missing_eos_penalty", self.missing_eos_penalty, 0, "it is subtracted")
        if self.whiten_by_prompt and (self.samples_per_prompt < 2 or not self.whiten_scores):
            raise ConfigError(
                f"whiten_by_prompt needs whiten_scores=True and samples_per_prompt >= 2, got {self.whiten_scores} and "
                f"{self.samples_per_prompt}"
            )
        if self.kl_ctrl == "adaptive" and not self.kl_coef > 0:
            raise ConfigError("kl_coef must be > 0 for kl_ctrl='adaptive': a product never leaves 0")
        if self.advantage == "rloo" and self.samples_per_prompt < 2:
            raise ConfigError(
                f"advantage='rloo' compares answers to one prompt: samples_per_prompt must be >= 2, got "
                f"{self.samples_per_prompt}"
            )

    def check_token_rewards(self) -> None:
        """What cannot be when the reward stands on the tokens.

        Raises:
            ConfigError: a setting that shapes or compares one number an answer.
        """
        for name, value, remedy in (
            ("advantage", self.advantage == "rloo", "use advantage='gae'"),
            ("whiten_scores", self.whiten_scores, "use whiten_rewards=True, which scales token rewards"),
            ("score_clip", self.score_clip is not None, "choose a smaller beta of the reward"),
        ):
            if value:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} takes one score an answer, but the reward has token_level=True: "
                    f"{remedy}, or give the reward token_level=False"
                )

    def _settle_batch(self) -> None:
        """Fix how an iteration is cut into steps and micro-batches; every rank holds the same number of answers."""
        per_step = self.per_device_train_batch_size * self.world_size
        if self.rollout_batch_size is None:
            self.rollout_batch_size = per_step * self.gradient_accumulation_steps * self.num_mini_batches
        unit = self.samples_per_prompt * self.world_size
        if self.rollout_batch_size % unit or self.rollout_batch_size % (self.num_mini_batches * self.world_size):
            raise ConfigError(
                f"rollout_batch_size={self.rollout_batch_size} answers must be a multiple of samples_per_prompt "
                f"({self.samples_per_prompt}) * ranks ({self.world_size}) and of num_mini_batches "
                f"({self.num_mini_batches}) * ranks"
            )
        # a last, smaller micro-batch is fine: the loss is normalised over the whole step
        self.gradient_accumulation_steps = -(-self.local_mini_batch_size // self.per_device_train_batch_size)

    @property
    def local_batch_size(self) -> int:
        """Answers an iteration on this rank."""
        assert self.rollout_batch_size is not None
        return self.rollout_batch_size // self.world_size

    @property
    def local_mini_batch_size(self) -> int:
        """Answers an optimizer step on this rank."""
        return self.local_batch_size // self.num_mini_batches

    @property
    def steps_per_iteration(self) -> int:
        """Optimizer steps taken on the answers of one iteration."""
        return self.num_ppo_epochs * self.num_mini_batches
