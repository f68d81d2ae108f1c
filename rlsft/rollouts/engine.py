"""The one interface through which completions are drawn, whatever draws them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from rlsft.rollouts.sampling import Completion, SamplingParams


@runtime_checkable
class RolloutEngine(Protocol):
    """Anything that continues prompts: transformers in process today, a server tomorrow.

    An engine draws with the policy's current weights, leaves the policy's mode as it found it, takes its
    randomness from `sampling.seed` alone, and keeps the order of the prompts.
    """

    def generate(
        self, prompt_ids: list[list[int]], sampling: SamplingParams, num_samples: int = 1
    ) -> list[list[Completion]]:
        """Draw `num_samples` completions for each prompt.

        Args:
            prompt_ids: unpadded token ids, one list a prompt.
            sampling: how to draw; see `SamplingParams`.
            num_samples: completions a prompt.

        Returns:
            One list of `num_samples` completions for each prompt, in the order given.
        """
        ...
