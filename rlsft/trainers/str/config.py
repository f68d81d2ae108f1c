"""Settings of the STR chain. Inherited fields (dtype, LoRA, batch size, …) hold for every stage that trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rlsft.errors import ConfigError
from rlsft.trainers.arguments import at_least
from rlsft.trainers.chain.config import ChainConfig

STAGES = ("sft", "samples", "ranked", "reward", "ppo", "evaluation")


@dataclass
class STRConfig(ChainConfig):
    """Configuration of `STRTrainer` (arXiv 2402.18284): SFT -> sample -> rank -> reward model -> PPO -> evaluation.

    Fields named `sft_*`, `sample_*`, `rank_*`, `reward_*`, `ppo_*` and `eval_*` belong to one stage. `sft_args`,
    `reward_args` and `ppo_args` set any further field of that stage's own config.
    """

    # -- samples
    sample_prompts: int = field(default=256, metadata={"help": "prompts that are answered and ranked"})
    samples_per_prompt: int = field(default=16, metadata={"help": "answers a prompt, m in the paper; at least 2"})
    sample_temperature: float = field(default=0.8, metadata={"help": "temperature of the ranked samples"})
    sample_top_p: float = field(default=0.95, metadata={"help": "nucleus of the ranked samples"})
    # -- ranking
    encoder: str | None = field(
        default=None, metadata={"help": "sentence encoder: minilm or a model folder; none = word overlap"}
    )
    similarity: str = field(default="shifted_cosine", metadata={"help": "edge map of the TextRank graph"})
    textrank_form: Literal["stochastic", "eigenvector"] = field(
        default="stochastic",
        metadata={"help": "stochastic = equation 5 of the paper; eigenvector = the released code"},
    )
    damping: float = field(default=0.85, metadata={"help": "damping factor d of TextRank"})
    teleport: Literal["demonstration", "none"] = field(
        default="demonstration",
        metadata={"help": "teleport to the demonstration, or none = the paper's ranker"},
    )
    teleport_strength: float = field(
        default=4.0, metadata={"help": "v_i ~ exp(strength * cos(answer_i, demonstration))"}
    )
    cluster: Literal["ball_hall", "str"] = field(default="ball_hall", metadata={"help": "ISODATA variant"})
    rank_interval: int = field(
        default=0, metadata={"help": "least rank distance of a pair; 0 = half the representatives"}
    )
    pair_mode: Literal["at_least", "exact"] = field(
        default="at_least", metadata={"help": "pairs at the interval or further apart, or exactly at it"}
    )
    max_pairs_per_prompt: int = field(default=0, metadata={"help": "cap on pairs a prompt; 0 = all"})
    noise_rate: float = field(default=0.24, metadata={"help": "share of pairs whose low answer gets noise"})
    # -- policy
    ppo_episodes: int = field(default=1024, metadata={"help": "answers sampled in all of PPO"})
    ppo_batch_size: int = field(default=64, metadata={"help": "answers an iteration"})
    ppo_learning_rate: float = field(default=1e-5, metadata={"help": "PPO learning rate"})
    ppo_epochs: int = field(default=4, metadata={"help": "passes over each batch of answers"})
    ppo_mini_batches: int = field(default=1, metadata={"help": "optimizer steps a pass"})
    kl_coef: float = field(default=0.5, metadata={"help": "weight of the KL to the SFT policy, in whitened rewards"})
    kl_ctrl: Literal["fixed", "adaptive"] = field(
        default="fixed", metadata={"help": "KL weight fixed or steered to kl_target"}
    )
    kl_target: float = field(default=6.0, metadata={"help": "nats an answer that the adaptive controller aims at"})
    missing_eos_penalty: float | None = field(
        default=None, metadata={"help": "subtracted from the score of an answer that does not end"}
    )
    ppo_args: dict[str, Any] | str | None = field(default=None, metadata={"help": "further PPOConfig fields, as JSON"})
    # -- evaluation
    agreement_prompts: int = field(
        default=200, metadata={"help": "held-out prompts of the rank-agreement proxy, at most"}
    )

    trained_stages = ("sft", "reward", "ppo")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples_per_prompt < 2:
            raise ConfigError(f"samples_per_prompt must be >= 2 to rank, got {self.samples_per_prompt}")
        at_least("ppo_batch_size", self.ppo_batch_size, 1, "it counts answers")
        if not 0.0 <= self.noise_rate < 1.0:
            raise ConfigError(f"noise_rate must be in [0, 1), got {self.noise_rate}")
        if not 0.0 <= self.damping < 1.0:
            raise ConfigError(f"damping must be in [0, 1), got {self.damping}")
        if self.ppo_episodes < self.ppo_batch_size:
            raise ConfigError(
                f"ppo_episodes ({self.ppo_episodes}) must be at least ppo_batch_size ({self.ppo_batch_size}), "
                "which is one iteration"
            )

    def stage_names(self) -> list[str]:
        """Every stage of a run in its order, by its folder."""
        return list(STAGES)

    def stage_metrics_path(self) -> str:
        """All stages log to the run's file."""
        return str(self.metrics_file)

    # ---- the configs of the single stages --------------------------------------------------------------------------
    def reward_config(self, output_dir: str) -> Any:
        """`RewardConfig` of the reward stage."""
        from rlsft.trainers.reward import RewardConfig

        own = {"num_train_epochs": self.reward_num_train_epochs, "learning_rate": self.reward_learning_rate}
        return self.stage_config(RewardConfig, output_dir, own, self.reward_args)

    def ppo_config(self, output_dir: str) -> Any:
        """`PPOConfig` of the policy stage."""
        from rlsft.trainers.ppo.config import PPOConfig

        own = {
            "learning_rate": self.ppo_learning_rate,
            "total_episodes": self.ppo_episodes,
            "num_ppo_epochs": self.ppo_epochs,
            "num_mini_batches": self.ppo_mini_batches,
            "rollout_batch_size": self.ppo_batch_size,
            "kl_coef": self.kl_coef,
            "kl_ctrl": self.kl_ctrl,
            "kl_target": self.kl_target,
            "missing_eos_penalty": self.missing_eos_penalty,
            "max_completion_length": self.max_completion_length,
            "whiten_scores": True,
        }
        return self.stage_config(PPOConfig, output_dir, own, self.ppo_args)

    def ranking_options(self) -> dict[str, Any]:
        """Keyword arguments of `rlsft.ranking.rank_responses`, all but the encoder."""
        return {
            "similarity": self.similarity,
            "form": self.textrank_form,
            "damping": self.damping,
            "teleport": None if self.teleport == "none" else self.teleport,
            "teleport_strength": self.teleport_strength,
            "cluster": self.cluster,
            "rank_interval": self.rank_interval or None,
            "pair_mode": self.pair_mode,
            "max_pairs_per_prompt": self.max_pairs_per_prompt or None,
            "noise_rate": self.noise_rate,
            "language": self.language,
            "seed": self.seed,
        }
