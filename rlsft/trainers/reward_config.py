"""Settings of `RewardTrainer`: TRL's names where TRL has one, and the losses of RFT, checked when built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rlsft.errors import ConfigError
from rlsft.objectives.pair_rewards import PAIR_LOSSES, SPANS, PairLoss
from rlsft.trainers.arguments import RlsftArguments, at_least, one_of


@dataclass
class RewardConfig(RlsftArguments):
    """Settings of `RewardTrainer`; names and defaults are TRL's where it has them."""

    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate of AdamW."})
    disable_dropout: bool = field(
        default=True,
        metadata={"help": "Set every dropout to 0: noise in a score is noise in the order it is to learn."},
    )
    center_rewards_coefficient: float | None = field(
        default=None,
        metadata={
            "help": "Weight of (chosen + rejected)^2, which keeps rewards near zero (arXiv 2312.09244, "
            "equation 2); 0.01 is usual. Unset: none."
        },
    )
    pair_loss: PairLoss = field(
        default="logistic",
        metadata={
            "help": "logistic: -log sigmoid(difference). linear: the difference itself, the gradient of arXiv "
            "2405.17888; it needs reward_bound."
        },
    )
    reward_bound: float | None = field(
        default=None,
        metadata={"help": "R: rewards become R * sigmoid(head), so they lie in (0, R). Unset: not bounded."},
    )
    reward_span: Literal["sequence", "divergence"] = field(
        default="sequence",
        metadata={
            "help": "sequence: compare the rewards at the last token. divergence: the rewards at every token from the "
            "first that differs to the end of the longer answer, as the released code of arXiv 2405.17888."
        },
    )
    padding_side: Literal["right", "left"] = field(
        default="right", metadata={"help": "Where batches are padded; it changes no result."}
    )
    pad_to_multiple_of: int | None = field(
        default=None,
        metadata={"help": "Pad batches to a multiple of so many tokens. Unset: to the longest row."},
    )

    def __post_init__(self) -> None:
        one_of("padding_side", self.padding_side, ("right", "left"))
        at_least("center_rewards_coefficient", self.center_rewards_coefficient, 0, "it is a weight", optional=True)
        check_pair_loss(self.pair_loss, self.reward_bound, self.reward_span)
        super().__post_init__()


def check_pair_loss(pair_loss: str, reward_bound: float | None, reward_span: str) -> None:
    """Refuse values that no loss has, and a linear loss on rewards that could grow for ever."""
    one_of("pair_loss", pair_loss, PAIR_LOSSES)
    one_of("reward_span", reward_span, SPANS)
    if reward_bound is not None and not 0 < reward_bound < float("inf"):
        raise ConfigError(f"reward_bound must be unset or a finite number > 0, got {reward_bound!r}")
    if pair_loss == "linear" and reward_bound is None:
        raise ConfigError(
            "pair_loss='linear' needs reward_bound=R (for instance 5): the linear loss rewards an ever larger "
            "difference, so that unbounded rewards would grow until they overflow. With a bound they are R * "
            "sigmoid(head), as the toy of arXiv 2405.17888 has them. pair_loss='logistic' needs no bound."
        )
