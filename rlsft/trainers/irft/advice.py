"""Warnings that teach: what goes wrong in IRFT, how it shows, what to change. Each is said once, and counted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from rlsft.trainers.irft.config import IRFTConfig
from rlsft.trainers.irft.pairs import Pair

logger = logging.getLogger(__name__)

STABLE_BETA = 0.5  # |1 - 1/beta| < 1 only above it
SOLVED_ACCURACY = 0.98
SATURATED_SHARE = 0.9
COLLAPSE_SHARE = 0.05  # of the demonstrations' own log-probability
COLLAPSE_NATS = 1.0
SHORT_TOKENS = 2
SHORT_SHARE = 0.5
CUT_OFF_SHARE = 0.9
STEPS_THAT_ARE_FEW = 10
WINDOW = 3  # logged rows in a row, so that one lucky batch says nothing


def contraction_factor(beta: float, alpha: float = 1.0) -> float:
    """`|1 - alpha / beta|`: what a round does to `log(p_data / p_t)` under the logistic loss.

    A solved inner loop moves the policy to `p_{t+1} ~ p_t (p_data / p_t)^(1 / beta)` (SPIN, arXiv 2401.01335, theorem
    5.4); one that goes the share `alpha` of the way multiplies the distance by this factor: below 1 rounds converge, at
    1 they oscillate, above they diverge.

    Args:
        beta: factor of the log-ratios.
        alpha: share of the way that the inner loop goes, 1 = solved.
    """
    return abs(1 - alpha / beta)


class Advisor:
    """Looks at settings, draws and logged rows; keeps what it said, so that the log shows it too."""

    def __init__(self, args: IRFTConfig):
        self.args = args
        self._said: dict[str, bool] = {}  # name -> whether a logged row has shown it
        self._in_a_row: dict[str, int] = {}

    def flags(self) -> dict[str, float]:
        """`advice/NAME` = 1 for what was said since the last call."""
        new = [name for name, shown in self._said.items() if not shown]
        self._said |= dict.fromkeys(new, True)
        return {f"advice/{name}": 1.0 for name in new}

    def _say(self, name: str, message: str) -> None:
        if name not in self._said:
            self._said[name] = False
            logger.warning(message)

    def _lasts(self, name: str, holds: bool) -> bool:
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1 if holds else 0
        return self._in_a_row[name] >= WINDOW

    def before_training(self, steps_a_round: int) -> None:
        """What the settings alone tell."""
        args = self.args
        if args.refresh != "none" and args.sampling().is_truncated:
            self._say(
                "truncated_sampling",
                f"answers are drawn with temperature={args.temperature:g}, top_p={args.top_p:g}, top_k={args.top_k}: "
                "some tokens are never drawn, so the first step of a round is not a multiple of the SFT step. Draw "
                "from the policy itself: temperature=1, top_p=1, top_k=0.",
            )
        elif args.refresh != "none" and args.temperature != 1:
            self._say(
                "tempered_sampling",
                f"answers are drawn, and both sides scored, at temperature={args.temperature:g}: what is trained is "
                "the policy at that temperature, and only there is the first step of a round a multiple of SFT's.",
            )
        if args.loss_type == "linear" and steps_a_round > STEPS_THAT_ARE_FEW and args.refresh != "per_step":
            self._say(
                "linear_many_steps",
                f"loss_type='linear' has no lower bound on answers that stay the same, and a round takes "
                f"{steps_a_round} steps on them. Set steps_per_round to a few, or refresh='per_step'.",
            )

    def after_drawing(self, pairs: Sequence[Pair]) -> None:
        """What a round's own answers tell: too short, or never ended."""
        if not pairs:
            return
        short = sum(len(pair.answer()) - pair.ended < SHORT_TOKENS for pair in pairs) / len(pairs)
        if short > SHORT_SHARE:
            self._say(
                "short_answers",
                f"{short:.0%} of the drawn answers have fewer than {SHORT_TOKENS} tokens. The prompt may be off the "
                "template that the model knows, or the model ends at once; look at negatives/ in the output_dir, and "
                "fine-tune on the demonstrations (rlsft sft) first.",
            )
        cut_off = sum(not pair.ended for pair in pairs) / len(pairs)
        if cut_off > CUT_OFF_SHARE:
            self._say(
                "unending_answers",
                f"{cut_off:.0%} of the drawn answers were cut off by max_completion_length="
                f"{self.args.max_completion_length}. The model may never have learned the end token of this template "
                "(fine-tune with rlsft sft first), or the limit is too low.",
            )
        if self.args.generation_template is not None:
            self._say(
                "off_template",
                "generation_template makes the model answer another text than the one that is trained: the answers do "
                "not come from the policy that the loss compares. Unset it, unless a published run is repeated.",
            )

    def after_log(self, logs: Mapping[str, float]) -> None:
        """What a logged row tells about the inner loop."""
        self._on_instability(logs)
        self._on_saturation(logs)
        self._on_collapse(logs)

    def _on_instability(self, logs: Mapping[str, float]) -> None:
        args = self.args
        returns = args.reference == "previous" and args.loss_type == "logistic" and args.refresh in ("shards", "full")
        holds = args.beta <= STABLE_BETA and logs.get("accuracy", 0.0) > SOLVED_ACCURACY
        if self._lasts("instability", returns and args.rounds > 1 and holds):
            self._say(
                "instability",
                f"the reward tells {logs['accuracy']:.0%} of the pairs apart at beta={args.beta:g}: the inner loop is "
                f"nearly solved, and rounds then multiply the distance to the data by |1 - alpha/beta|, up to "
                f"{contraction_factor(args.beta):.3g} for alpha = 1 (alpha: the share of the way a round goes). Below "
                f"1 needs alpha < {2 * args.beta:g}: take fewer steps a round (epochs_per_round, steps_per_round, a "
                "lower learning_rate), or beta > 0.5.",
            )

    def _on_saturation(self, logs: Mapping[str, float]) -> None:
        if self._lasts("saturation", logs.get("saturation", 0.0) > SATURATED_SHARE):
            self._say(
                "saturation",
                f"{logs['saturation']:.0%} of the pairs pull no more: their loss is flat. The steps left in this round "
                "do little; take fewer a round and more rounds, a smaller beta, or refresh='adaptive'.",
            )

    def _on_collapse(self, logs: Mapping[str, float]) -> None:
        fall = -logs.get("rewards/real", 0.0) / self.args.beta  # nats below the reference
        bound = max(COLLAPSE_NATS, COLLAPSE_SHARE * abs(logs.get("logps/real", 0.0)))
        if self.args.normalize_length:
            bound = COLLAPSE_SHARE  # a token
        if self._lasts("collapse", fall > bound):
            self._say(
                "collapse",
                f"the demonstrations' log-probability lies {fall:.3g} nats below the reference: the loss widens its "
                "margin by pushing both sides down. Set sft_coef (for example beta / 2), lower learning_rate, or take "
                "fewer steps a round.",
            )
