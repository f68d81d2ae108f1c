"""What a sampler is asked for and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rlsft.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How completions are drawn: logits / temperature, then top-k, then the nucleus of the tempered distribution.

    The defaults draw from the policy itself, which is what unbiased importance ratios need.
    """

    temperature: float = 1.0  # 1 = the policy itself; 0 = greedy
    top_p: float = 1.0  # smallest set of tokens whose probability reaches it; 1 = all tokens
    top_k: int = 0  # only the k likeliest tokens; 0 = all tokens
    max_new_tokens: int = 64  # a completion of this length without a stop token ends with "length"
    seed: int = 0
    prompt_offset: int = 0  # place of the first prompt in a larger draw: pieces drawn apart equal the whole

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or self.temperature == float("inf"):
            raise ConfigError(f"temperature must be a finite number >= 0 (0 is greedy), got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must lie in (0, 1], where 1 keeps every token, got {self.top_p}")
        if self.top_k < 0:
            raise ConfigError(f"top_k must be >= 0, where 0 keeps every token, got {self.top_k}")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be >= 1, got {self.max_new_tokens}")
        if self.seed < 0 or self.prompt_offset < 0:
            raise ConfigError(f"seed and prompt_offset must be >= 0, got {self.seed} and {self.prompt_offset}")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken instead of a draw."""
        return self.temperature == 0

    @property
    def is_truncated(self) -> bool:
        """Whether some tokens can never be drawn, so that importance ratios to the policy are biased."""
        return self.is_greedy or self.top_p < 1 or self.top_k > 0

    @property
    def scoring_temperature(self) -> float:
        """The temperature at which log-probabilities of the draws are meant: 1 for greedy decoding."""
        return self.temperature or 1.0

    def describe(self) -> dict[str, Any]:
        """The record kept beside samples: settings, and which identities of the untempered policy they break."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
            "greedy": self.is_greedy,
            "tempered": self.temperature != 1,
            "truncated": self.is_truncated,
        }


@dataclass(frozen=True)
class Completion:
    """One drawn completion.

    Attributes:
        token_ids: the new tokens, the stop token included when it was drawn.
        finish_reason: "stop" when the last token is a stop token, "length" when `max_new_tokens` cut it off.
        logprobs: log-probability of each token under `softmax(logits / temperature)` over the whole
            vocabulary (before top-k and top-p; temperature 1 when greedy), or None if the engine has none.
    """

    token_ids: list[int]
    finish_reason: Literal["stop", "length"]
    logprobs: list[float] | None = None
