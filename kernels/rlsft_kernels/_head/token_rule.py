"""A token loss that a kernel knows by name, for row kernels that fold a row and overwrite it in one launch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class TokenRule:
    """`weights * (rule(logprob) + kl_coef * kl - entropy_coef * entropy)` of each row; see `linear_policy_loss`."""

    kind: str  # "nll", "dft", "ppo", "cispo" or "reinforce"
    weights: Tensor  # [L], as all below; float32, zero where a row does not count
    advantages: Tensor | None = None
    old_logprobs: Tensor | None = None
    ref_logprobs: Tensor | None = None
    clip_low: float = 0.0
    clip_high: float = 0.0
    dual_clip: float | None = None
    kl_coef: float = 0.0
    kl_estimator: str = "k3"
    entropy_coef: float = 0.0

    def of(self, rows: slice) -> TokenRule:
        """Some rows."""

        def part(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[rows]

        return replace(
            self,
            weights=self.weights[rows],
            advantages=part(self.advantages),
            old_logprobs=part(self.old_logprobs),
            ref_logprobs=part(self.ref_logprobs),
        )
