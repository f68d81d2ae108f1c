"""The implicit reward: what a policy has learned beyond its reference, as a reward for whole answers and tokens."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rlsft.artifacts import write_json
from rlsft.errors import ModelError, RunError
from rlsft.models import load_policy, load_tokenizer
from rlsft.rewards.manifest import MANIFEST, Manifest, read_manifest, template_digest
from rlsft.rewards.token_rewards import TokenRewards, check_beta, check_pair, encode_rows, rewards_of_rows


class ImplicitReward(nn.Module):
    """`r(x, y) = beta * (log pi_theta(y|x) - log pi_ref(y|x))`, for answers and for each of their tokens.

    As `reward_model` of `PPOTrainer` it scores the very tokens that were drawn, so the policy must have its
    tokenizer. With `token_level=True` PPO gives each token its own reward before the advantages are made, and not
    the sum at the end.

    Args:
        policy: pi_theta, a causal LM.
        reference: pi_ref; None = `policy` without its LoRA adapter.
        tokenizer: of both, with a pad token.
        beta: scale of the reward, above 0.
        token_level: whether PPO spreads the reward over the tokens.
        batch_size: answers a forward.
        max_length: tokens of prompt and answer together.
        system_prompt: as in training.
        truncate_prompt: drop the oldest prompt tokens when there is no room; False = such a prompt is an error.

    Raises:
        ConfigError: `beta` out of range.
        ModelError: vocabularies that differ, or no reference and no adapter.
    """

    def __init__(
        self,
        policy: nn.Module,
        reference: nn.Module | None,
        tokenizer: Any,
        *,
        beta: float = 0.1,
        token_level: bool = False,
        batch_size: int = 32,
        max_length: int = 1024,
        system_prompt: str | None = None,
        truncate_prompt: bool = False,
    ):
        super().__init__()
        check_beta(beta)
        check_pair(policy, reference)
        self.policy = policy
        self.reference = reference
        self.tokenizer = load_tokenizer(tokenizer)
        self.beta = float(beta)
        self.token_level = token_level
        self.batch_size = batch_size
        self.max_length = max_length
        self.system_prompt = system_prompt
        self.truncate_prompt = truncate_prompt
        self.sources: tuple[str, str | None] | None = None  # the folders it was loaded from

    @classmethod
    def from_checkpoints(
        cls,
        policy: str | os.PathLike[str],
        reference: str | os.PathLike[str] | None = None,
        *,
        dtype: str = "auto",
        pad_token: str | None = None,
        **options: Any,
    ) -> ImplicitReward:
        """From two folders; without `reference` the policy's folder must be an adapter, whose base is the reference.

        Args:
            policy: a model folder, or an adapter folder.
            reference: the same; None = the adapter's base model.
            dtype: "auto" = that of the files, or a name.
            pad_token: where the tokenizer has none.
            options: `beta` and the other arguments of the class.

        Raises:
            ConfigError, ModelError: see the message.
        """
        reward = cls(
            load_policy(policy, dtype=dtype),
            None if reference is None else load_policy(reference, dtype=dtype),
            load_tokenizer(policy, pad_token=pad_token),
            **options,
        )
        reward.sources = (os.fspath(policy), None if reference is None else os.fspath(reference))
        return reward

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], *, dtype: str = "auto") -> ImplicitReward:
        """From the folder that `save_pretrained` or `rlsft export --token-rewards` wrote.

        Raises:
            ModelError: no manifest, a checkpoint that it names is gone, or its chat template has changed.
        """
        manifest = read_manifest(path)
        reward = cls.from_checkpoints(
            manifest.policy, manifest.reference, dtype=dtype, beta=manifest.beta, pad_token=manifest.pad_token,
            token_level=manifest.token_level, max_length=manifest.max_length, system_prompt=manifest.system_prompt,
            truncate_prompt=manifest.truncate_prompt,
        )  # fmt: skip
        if template_digest(reward.tokenizer) != manifest.template:
            raise ModelError(
                f"the chat template of {manifest.policy} is not the one that {Path(path) / MANIFEST} was written with: "
                "rewards would be of other texts. Put the old template back, or export the rewards again"
            )
        return reward

    def save_pretrained(self, path: str | os.PathLike[str]) -> Path:
        """Write the manifest, which names both checkpoints; the weights stay where they are.

        Raises:
            RunError: the models were built in memory, so no folder can be named.
        """
        write_json(Path(path) / MANIFEST, self.manifest().to_json())
        return Path(path)

    def manifest(self) -> Manifest:
        """What identifies this reward.

        Raises:
            RunError: the models were built in memory.
        """
        if self.sources is None:
            raise RunError(
                "this reward was built from models in memory, so no manifest can name their folders; save both and "
                "use ImplicitReward.from_checkpoints(POLICY, REFERENCE)"
            )
        return Manifest.of(
            *self.sources, tokenizer=self.tokenizer, beta=self.beta, token_level=self.token_level,
            max_length=self.max_length, system_prompt=self.system_prompt, truncate_prompt=self.truncate_prompt,
        )  # fmt: skip

    def encode(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[dict[str, list[Any]]]:
        """Rows of `input_ids` + `completion_mask`, as in training."""
        return encode_rows(
            self.tokenizer, prompts, completions, max_length=self.max_length, system_prompt=self.system_prompt,
            truncate_prompt=self.truncate_prompt,
        )  # fmt: skip

    def rewards_of_rows(
        self, rows: Sequence[Mapping[str, Any]], on_batch: Callable[[int], None] | None = None
    ) -> TokenRewards:
        """Rewards of the completion tokens of encoded rows."""
        return rewards_of_rows(
            self.policy, self.reference, rows, pad_token_id=self.tokenizer.pad_token_id, beta=self.beta,
            batch_size=self.batch_size, on_batch=on_batch,
        )  # fmt: skip

    def token_rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> TokenRewards:
        """One float32 array an answer; see `rlsft.rewards.token_rewards`."""
        return self.rewards_of_rows(self.encode(prompts, completions))

    def score(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, per_token: bool = False
    ) -> NDArray[np.float64]:
        """Reward of every answer, the sum of its token rewards; `per_token` divides by their number.

        Returns:
            float64 [n].
        """
        return sequence_rewards(self.token_rewards(prompts, completions), per_token=per_token)


def sequence_rewards(rewards: TokenRewards, *, per_token: bool = False) -> NDArray[np.float64]:
    """Sums, or means, of token rewards in float64, [n]; an answer without tokens has 0."""
    sums = np.array([row.sum(dtype=np.float64) for row in rewards], dtype=np.float64)
    return sums / np.array([max(1, len(row)) for row in rewards]) if per_token else sums
