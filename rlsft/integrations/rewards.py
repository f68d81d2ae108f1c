"""A learned reward as the function that TRL, verl and OpenRLHF call."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from rlsft.errors import ConfigError, DataError, ModelError
from rlsft.integrations.prompts import answer_of, prompt_of
from rlsft.integrations.rank_reward import SUMMARY, RankReward
from rlsft.models import load_tokenizer
from rlsft.rewards import ImplicitReward, RewardModel, is_implicit_reward, score_rows, sequence_rewards
from rlsft.rewards.token_rewards import encode_rows

# where the run directories of RFT and STR keep their reward model
_RUN_FOLDERS = ("reward_model", "reward/model")
# verl and OpenRLHF call from many threads, and scoring switches the model's mode
_ONE_AT_A_TIME = threading.Lock()

__all__ = ["RankReward", "RewardFunction", "load_reward"]


class RewardFunction:
    """A reward model or an implicit reward as a plain function of prompts and completions.

    Texts are encoded as in training the reward: template, end token, length. It is called with TRL's arguments; the
    methods `compute_score` and `reward_queries` have those of verl and OpenRLHF.

    Args:
        reward: a `RewardModel`, or an `ImplicitReward`, which brings its own tokenizer and lengths.
        tokenizer: of the reward model; not used for an implicit reward.
        name: under which trainers log it.
        batch_size: answers a forward.
        max_length: tokens of prompt and answer together; an answer loses what is beyond.
        system_prompt: as in training the reward.
        truncate_prompt: drop the oldest prompt tokens when there is no room; False = such a prompt is an error.
        normalized: subtract the mean and divide by the standard deviation that are stored with a reward model.
        per_token: divide an implicit reward by the number of the answer's tokens.

    Raises:
        ConfigError: another kind of reward, or a setting that does not fit its kind.
    """

    def __init__(
        self,
        reward: RewardModel | ImplicitReward,
        tokenizer: Any = None,
        *,
        name: str = "learned_reward",
        batch_size: int = 32,
        max_length: int = 1024,
        system_prompt: str | None = None,
        truncate_prompt: bool = True,
        normalized: bool = False,
        per_token: bool = False,
    ):
        if not isinstance(reward, (RewardModel, ImplicitReward)):
            raise ConfigError(
                f"reward must be a RewardModel or an ImplicitReward, got {type(reward).__name__}; "
                "RewardFunction.from_pretrained(FOLDER) loads one"
            )
        is_implicit = isinstance(reward, ImplicitReward)
        if normalized and is_implicit:
            raise ConfigError("normalized=True is for reward models, which store a mean and a standard deviation")
        if per_token and not is_implicit:
            raise ConfigError("per_token=True is for implicit rewards: a reward model gives one number an answer")
        if not is_implicit and tokenizer is None:
            raise ConfigError("tokenizer is missing: a reward model reads tokens of its own tokenizer")
        self.reward = reward.eval().requires_grad_(False)
        self.tokenizer = reward.tokenizer if isinstance(reward, ImplicitReward) else load_tokenizer(tokenizer)
        self.encoding = {
            "max_length": max_length, "system_prompt": system_prompt, "truncate_prompt": truncate_prompt
        }  # fmt: skip
        if isinstance(reward, ImplicitReward):
            self.encoding = {name: getattr(reward, name) for name in self.encoding}
        self.batch_size, self.normalized, self.per_token = batch_size, normalized, per_token
        self.__name__ = name

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str], *, device: str | torch.device | None = None, dtype: str = "auto",
        **options: Any,
    ) -> RewardFunction:  # fmt: skip
        """From a reward model's folder, a finished RFT or STR run, or a folder of exported token rewards.

        Args:
            path: what `RewardModel.save_pretrained`, `rlsft reward`, `rlsft rft`, `rlsft str` or `rlsft export
                --token-rewards` wrote.
            device: None = the current CUDA device where there is one.
            dtype: "auto" = that of the files, or a name.
            options: other arguments of the class.

        Raises:
            ModelError: no reward there; the message says what the folder is.
        """
        folder = reward_folder(path)
        reward: RewardModel | ImplicitReward
        if is_implicit_reward(folder):
            reward, tokenizer = ImplicitReward.from_pretrained(folder, dtype=dtype), None
        else:
            reward, tokenizer = RewardModel.from_pretrained(folder, dtype=dtype), load_tokenizer(folder)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(reward.to(device), tokenizer, **options)

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
        """One number an answer; prompts and completions are strings or chat lists.

        Raises:
            DataError: lengths differ, or a row cannot be encoded (named by its number).
        """
        return self._score(encode_rows(self.tokenizer, prompts, completions, **self.encoding))

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **_columns: Any) -> list[float]:
        """TRL's `reward_funcs`: the data set's other columns, ids and trainer state are not needed."""
        return self.score(prompts, completions)

    def compute_score(
        self,
        data_source: Any = None,
        solution_str: str | None = None,
        ground_truth: Any = None,
        extra_info: Any = None,
        *,
        data_sources: Sequence[Any] | None = None,
        solution_strs: Sequence[str] | None = None,
        ground_truths: Sequence[Any] | None = None,
        extra_infos: Sequence[Any] | None = None,
        **_options: Any,
    ) -> float | list[float]:
        """verl's `custom_reward_function`, for one answer (naive, dapo) or for a batch (the plural names).

        Only the answer and `extra_info`, which must hold the prompt, are read.

        Raises:
            DataError: no prompt in `extra_info`.
        """
        if solution_strs is not None:
            infos = extra_infos if extra_infos is not None else [None] * len(solution_strs)
            return self.score([prompt_of(info) for info in infos], list(solution_strs))
        if solution_str is None:
            raise DataError("compute_score needs solution_str, or solution_strs for a batch; got neither")
        return self.score([prompt_of(extra_info)], [solution_str])[0]

    def reward_queries(self, queries: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """OpenRLHF's queries: prompt and answer as one text in which the template has been written already.

        The text is read as it stands, so an answer that was cut off is scored without an end token.

        Args:
            queries: prompt and answer, special tokens included, [n].
            prompts: the first part of each, [n].

        Raises:
            DataError: lengths differ, or a query does not begin with its prompt.
        """
        if len(queries) != len(prompts):
            raise DataError(f"queries and prompts must have one length, got {len(queries)} and {len(prompts)}")
        rows = []
        for number, (query, prompt) in enumerate(zip(queries, prompts, strict=True)):
            answer = answer_of(query, prompt, number)
            rows.append(self._as_it_stands(query[: len(query) - len(answer)], answer))
        return self._score(rows)

    def _as_it_stands(self, prompt: str, answer: str) -> dict[str, list[Any]]:
        """Ids of a text that needs no template, the oldest of the prompt dropped when there is no room."""
        prompt_ids, whole, answer_ids = (
            list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in (prompt, prompt + answer, answer)
        )
        if whole[: len(prompt_ids)] == prompt_ids:
            answer_ids = whole[len(prompt_ids) :]
        limit = int(cast(int, self.encoding["max_length"]))
        answer_ids = answer_ids[: limit - 1]
        prompt_ids = prompt_ids[max(0, len(prompt_ids) + len(answer_ids) - limit) :]
        mask = [False] * len(prompt_ids) + [True] * len(answer_ids)
        return {"input_ids": prompt_ids + answer_ids, "completion_mask": mask}

    def _score(self, rows: Sequence[dict[str, Any]]) -> list[float]:
        if not rows:
            return []
        with _ONE_AT_A_TIME:
            if isinstance(self.reward, ImplicitReward):
                scores = sequence_rewards(self.reward.rewards_of_rows(rows), per_token=self.per_token)
            else:
                scores = score_rows(
                    self.reward, rows, pad_token_id=self.tokenizer.pad_token_id, batch_size=self.batch_size,
                    normalized=self.normalized,
                )  # fmt: skip
        return [float(score) for score in np.asarray(scores)]


def load_reward(path: str | os.PathLike[str], **options: Any) -> RewardFunction | RankReward:
    """The reward in a folder, whatever its kind: a reward model, token rewards, a finished run, or a ranking."""
    folder = Path(path).expanduser()
    if (folder / SUMMARY).is_file() and (folder / "ranked.jsonl").is_file():
        return RankReward.from_ranking(folder, **options)
    return RewardFunction.from_pretrained(folder, **options)


def reward_folder(path: str | os.PathLike[str]) -> Path:
    """Where the reward of a folder is: the folder itself, or the reward model inside a run.

    Raises:
        ModelError: it is no reward. A causal LM would be loaded with a random head, so it is refused.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ModelError(f"reward folder {folder} does not exist")
    if is_implicit_reward(folder):
        return folder
    for name in _RUN_FOLDERS:
        if (folder / name / "config.json").is_file():
            return folder / name
    if (folder / SUMMARY).is_file():
        raise ModelError(f"{folder} is a ranking: RankReward.from_ranking({str(folder)!r}), or load_reward")
    if (folder / "adapter_config.json").is_file():
        task = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("task_type")
        if task == "SEQ_CLS":
            return folder
        raise ModelError(f"{folder} is an adapter of a language model (task_type {task!r}), not of a reward model")
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} holds no reward: neither token_reward.json, nor config.json, nor {' or '.join(_RUN_FOLDERS)}"
        )
    names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    if not any(name.endswith("ForSequenceClassification") for name in names):
        raise ModelError(
            f"{folder} is a {', '.join(names) or 'model without a head'}, not a reward model; what it has learned "
            "beyond an older checkpoint is a reward: rlsft export --token-rewards --policy ... --reference ..."
        )
    return folder
