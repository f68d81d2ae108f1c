"""Settings of the RFT chain. Inherited fields (dtype, LoRA, batch size, …) hold for every stage that trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rlsft.errors import ConfigError
from rlsft.trainers.arguments import at_least, between, one_of
from rlsft.trainers.chain.config import ChainConfig
from rlsft.trainers.rft.stages import stage_names

PolicyStep = Literal["ppo", "apa", "rloo", "weighted_sft"]
POLICY_STEPS = ("ppo", "apa", "rloo", "weighted_sft")


@dataclass
class RFTConfig(ChainConfig):
    """Configuration of `RFTTrainer` (arXiv 2405.17888): SFT, then `rounds` of samples -> reward -> policy, evaluation.

    `sft_*`, `sample_*`, `reward_*`, `policy_*` and `eval_*` belong to one stage. `sft_args`, `reward_args` and
    `policy_args` set any further field of that stage's own config.

    beta is `kl_coef`. K, the gradient steps on one set of samples, follows from `sample_prompts`,
    `samples_per_prompt`, `reward_num_train_epochs` and the batch size. The two belong together: a solved reward with a
    small beta makes rounds swing, which `accumulate_negatives` prevents.

    Raises:
        ConfigError: a value is out of range or two settings contradict each other; the message names the field.
    """

    rounds: int = field(default=2, metadata={"help": "rounds of samples -> reward -> policy, T in the paper"})
    share_trunk: bool | None = field(
        default=None,
        metadata={
            "help": "policy, reward, value and reference hold one base model in memory, each with its own adapter. "
            "Unset: on with LoRA. It changes no result."
        },
    )
    # -- samples
    sample_prompts: int = field(default=256, metadata={"help": "prompts a round, the next ones every round"})
    samples_per_prompt: int = field(default=2, metadata={"help": "answers of the policy to each of them"})
    # -- reward
    pair_loss: Literal["logistic", "linear"] = field(
        default="logistic",
        metadata={"help": "logistic (default), or linear: the paper's gradient, which needs reward_bound"},
    )
    reward_bound: float | None = field(default=None, metadata={"help": "R: rewards are R * sigmoid(head)"})
    reward_span: Literal["sequence", "divergence"] = field(
        default="sequence",
        metadata={"help": "rewards at the last token, or at every token from the first that differs"},
    )
    reward_init: Literal["warm", "reinit"] = field(
        default="warm", metadata={"help": "each round's reward starts from the last round's, or afresh"}
    )
    accumulate_negatives: bool = field(
        default=True,
        metadata={"help": "learn the reward from the pairs of all rounds so far: no swinging from round to round"},
    )
    reward_eval_fraction: float = field(
        default=0.1, metadata={"help": "share of prompts held out of the rewards, to measure them and the policy"}
    )
    demonstration_weight: float = field(
        default=1.0, metadata={"help": "weight of the demonstration pairs in the reward loss (AIHF)"}
    )
    preference_weight: float = field(
        default=0.0, metadata={"help": "weight of the preference pairs in the reward loss (AIHF)"}
    )
    preference_data: str | None = field(
        default=None, metadata={"help": "file of prompt/chosen/rejected rows, for preference_weight > 0"}
    )
    # -- policy
    policy_step: PolicyStep = field(
        default="ppo",
        metadata={
            "help": "ppo; rloo: no value model; apa: squared regression on the advantage; weighted_sft: fine-tuning on "
            "demonstrations and own samples with weight exp(reward / kl_coef)"
        },
    )
    reference: Literal["initial", "previous"] = field(
        default="initial", metadata={"help": "the KL is measured to the SFT policy, or to the last round's"}
    )
    kl_coef: float = field(default=0.5, metadata={"help": "beta: weight of the KL to the reference"})
    center_rewards: bool = field(
        default=True,
        metadata={"help": "subtract from a reward the mean reward of the round's samples to the same prompt"},
    )
    missing_eos_penalty: float | None = field(
        default=None, metadata={"help": "subtracted from the reward of an answer that does not end"}
    )
    policy_learning_rate: float = field(default=1e-5, metadata={"help": "learning rate of the policy step"})
    policy_epochs: int = field(
        default=2, metadata={"help": "passes over each batch of answers; of weighted_sft over its rows"}
    )
    policy_episodes: int = field(default=512, metadata={"help": "answers drawn in a policy step (not weighted_sft)"})
    policy_batch_size: int = field(default=64, metadata={"help": "answers an iteration (not weighted_sft)"})
    policy_mini_batches: int = field(default=1, metadata={"help": "optimizer steps a pass (not weighted_sft)"})
    policy_samples_per_prompt: int | None = field(
        default=None, metadata={"help": "answers to a prompt in an iteration. Unset: 4 for rloo, 1 otherwise"}
    )
    weight_normalization: Literal["prompt", "round"] = field(
        default="prompt", metadata={"help": "weighted_sft: weights have mean 1 among a prompt's rows, or all rows"}
    )
    weight_cap: float = field(default=10.0, metadata={"help": "weighted_sft: largest weight of a row"})
    weight_demonstrations: bool = field(
        default=True, metadata={"help": "weighted_sft: demonstrations are rows too, beside the samples"}
    )
    policy_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "further PPOConfig fields (weighted_sft: SFTConfig fields), as JSON"}
    )

    trained_stages = ("sft", "reward", "policy")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choices()
        self._check_numbers()
        self._check_preferences()
        self._check_step()
        if self.share_trunk and not self.use_peft:
            raise ConfigError(
                "share_trunk=True needs use_peft=True: without adapters policy and reward change the weights that they "
                "would share. Set use_peft, or leave share_trunk unset."
            )
        # the stages' own checks now, not an hour into the run
        self.sft_config(self.output_dir)
        self.reward_config(self.output_dir)
        self.policy_config(self.output_dir)

    def _check_choices(self) -> None:
        one_of("policy_step", self.policy_step, POLICY_STEPS)
        one_of("reference", self.reference, ("initial", "previous"))
        one_of("reward_init", self.reward_init, ("warm", "reinit"))
        one_of("weight_normalization", self.weight_normalization, ("prompt", "round"))

    def _check_numbers(self) -> None:
        for name in (
            "policy_epochs", "policy_episodes", "policy_batch_size", "policy_mini_batches",
        ):  # fmt: skip
            at_least(name, getattr(self, name), 1, "it is a count")
        at_least("policy_samples_per_prompt", self.policy_samples_per_prompt, 1, "it is a count", optional=True)
        at_least("kl_coef", self.kl_coef, 0, "a negative weight would push the policy away from the reference")
        for name in ("demonstration_weight", "preference_weight"):
            at_least(name, getattr(self, name), 0, "it is a weight")
        between("reward_eval_fraction", self.reward_eval_fraction, 0.0, 0.9)  # of its prompts something must be left
        if not self.weight_cap > 0:
            raise ConfigError(f"weight_cap must be > 0, got {self.weight_cap!r}")

    def _check_preferences(self) -> None:
        if self.preference_data is not None and self.preference_weight == 0:
            raise ConfigError(
                "preference_data is given, but preference_weight is 0, so that no pair of it would be used; set "
                "preference_weight (1.0 weighs preferences and demonstrations alike), or leave the file out"
            )
        if self.demonstration_weight == 0:
            raise ConfigError(
                "demonstration_weight must be > 0: the reward is learned from demonstrations. For preferences alone "
                "use `rlsft reward` and `rlsft ppo`."
            )

    def _check_step(self) -> None:
        if self.policy_step in ("apa", "weighted_sft") and not self.kl_coef > 0:
            raise ConfigError(
                f"policy_step={self.policy_step!r} divides by kl_coef: it must be > 0, got {self.kl_coef!r}"
            )
        if self.policy_step != "weighted_sft" and self.policy_episodes < self.policy_batch_size:
            raise ConfigError(
                f"policy_episodes ({self.policy_episodes}) must be at least policy_batch_size "
                f"({self.policy_batch_size}), which is one iteration"
            )
        if self.sample_temperature == 0 and self.samples_per_prompt > 1:
            raise ConfigError(
                f"sample_temperature=0 gives samples_per_prompt={self.samples_per_prompt} equal answers; draw one, or "
                "set a temperature above 0"
            )

    @property
    def shares_trunk(self) -> bool:
        """Whether one base model serves all: as asked for, else wherever LoRA makes it possible."""
        return self.use_peft if self.share_trunk is None else self.share_trunk

    @property
    def answers_per_prompt(self) -> int:
        """Answers to a prompt in an iteration of the policy step."""
        return self.policy_samples_per_prompt or (4 if self.policy_step == "rloo" else 1)

    def stage_names(self) -> list[str]:
        """Every stage of a run in its order, by its folder; a round has three."""
        return stage_names(self.rounds)

    def _stages_in_words(self) -> str:
        return (
            f"sft, round_NN/samples, round_NN/reward, round_NN/policy (NN from 01 to {self.rounds:02d}) or evaluation"
        )

    # ---- the configs of the single stages --------------------------------------------------------------------------
    def reward_config(self, output_dir: str) -> Any:
        """`RewardConfig` of a round's reward."""
        from rlsft.trainers.reward import RewardConfig

        own: dict[str, Any] = {
            "num_train_epochs": self.reward_num_train_epochs,
            "learning_rate": self.reward_learning_rate,
            "pair_loss": self.pair_loss,
            "reward_bound": self.reward_bound,
            "reward_span": self.reward_span,
        }
        if self.per_device_train_batch_size % 2 == 0:
            # a pair is two sequences: half as many a pass and twice as many passes need the memory of SFT, and the
            # gradient of a step is the same
            own["per_device_train_batch_size"] = self.per_device_train_batch_size // 2
            own["gradient_accumulation_steps"] = self.gradient_accumulation_steps * 2
        return self.stage_config(RewardConfig, output_dir, own, self.reward_args)

    def policy_config(self, output_dir: str) -> Any:
        """`PPOConfig` of a round's policy step; `SFTConfig` for weighted_sft."""
        from rlsft.trainers.ppo.config import PPOConfig
        from rlsft.trainers.sft import SFTConfig

        if self.policy_step == "weighted_sft":
            passes = {"num_train_epochs": float(self.policy_epochs), "learning_rate": self.policy_learning_rate}
            return self.stage_config(SFTConfig, output_dir, passes, self.policy_args)
        own: dict[str, Any] = {
            "learning_rate": self.policy_learning_rate,
            "total_episodes": self.policy_episodes,
            "rollout_batch_size": self.policy_batch_size,
            "num_ppo_epochs": self.policy_epochs,
            "num_mini_batches": self.policy_mini_batches,
            "samples_per_prompt": self.answers_per_prompt,
            "kl_coef": self.kl_coef,
            "policy_loss": "apa" if self.policy_step == "apa" else "clip",
            "advantage": "rloo" if self.policy_step == "rloo" else "gae",
            "missing_eos_penalty": self.missing_eos_penalty,
            "max_completion_length": self.max_completion_length,
            "generation_batch_size": self.sample_batch_size,
            "num_sample_generations": 0,
        }
        return self.stage_config(PPOConfig, output_dir, own, self.policy_args)
