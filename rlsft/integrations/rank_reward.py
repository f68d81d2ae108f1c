"""STR's ranking as a reward: how an answer stands among the other answers to its prompt, by their words alone."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlsft.data.formats import completion_text
from rlsft.errors import ConfigError, DataError, ModelError
from rlsft.ranking.encoders import EncoderSpec, load_encoder
from rlsft.ranking.features import make_features
from rlsft.ranking.inputs import check_choice, collect_candidates, prompt_key
from rlsft.ranking.scoring import GraphSettings, score_answers
from rlsft.text import check_language

SUMMARY = "summary.json"
_SETTINGS = ("similarity", "form", "damping", "teleport", "teleport_strength", "language")
_TIE_DECIMALS = 9


class RankReward:
    """A reward without a model of its own: TextRank over the answers to one prompt (arXiv 2402.18284).

    With a demonstration, in the column `demonstration`, the ranking teleports to it. All answers to a prompt must be
    in one call, as in TRL's GRPO and RLOO on one process; a single answer has no rank and gets None.

    Args:
        encoder: None (word overlap), "minilm", a folder of a sentence encoder, or a function.
        value: "rank" = the share of the other answers that it beats, ties by half, 0 to 1; "score" = its TextRank
            score times the number of answers, whose mean over them is 1.
        num_generations: answers to a prompt; when set, another number is an error.
        similarity: see `rlsft.ranking.rank_responses`, as all that follow.
        form: "stochastic" or "eigenvector".
        damping: d of TextRank.
        teleport: "demonstration" or None.
        teleport_strength: factor of the cosine in the teleport's exponent.
        language: of the answers: en, ja or zh.
        name: under which trainers log it.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """

    def __init__(
        self,
        *,
        encoder: EncoderSpec = None,
        value: Literal["rank", "score"] = "rank",
        num_generations: int | None = None,
        similarity: str = "shifted_cosine",
        form: str = "stochastic",
        damping: float = 0.85,
        teleport: Literal["demonstration"] | None = "demonstration",
        teleport_strength: float = 4.0,
        language: str = "en",
        name: str = "rank_reward",
    ):
        self.value = check_choice("value", value, ("rank", "score"))
        check_language(language)
        self.encoder = load_encoder(encoder)
        self.num_generations = num_generations
        self.similarity, self.language = similarity, language
        self.graph = GraphSettings(
            form=form, damping=damping, teleport=teleport, teleport_strength=teleport_strength
        )  # fmt: skip
        self.__name__ = name

    @classmethod
    def from_ranking(cls, path: str | os.PathLike[str], *, encoder: EncoderSpec = None, **options: Any) -> RankReward:
        """With the settings of a ranking that `rlsft rank --output_dir` or STR's `ranked/` wrote.

        Args:
            path: a folder with `summary.json`.
            encoder: where the ranking's own, which the file knows by name only, cannot be found by that name.
            options: other arguments of the class, such as `value`.

        Raises:
            ModelError: no such file, or an encoder that must be given.
        """
        file = Path(path) / SUMMARY
        if not file.is_file():
            raise ModelError(f"{path} has no {SUMMARY}; rlsft rank FILE --output_dir FOLDER writes one")
        settings = json.loads(file.read_text(encoding="utf-8"))["settings"]
        used = settings["encoder"]
        if encoder is None and used is not None and used != "minilm" and not Path(used).is_dir():
            raise ModelError(
                f"the ranking in {path} used the encoder {used!r}, which is no folder here; give it: encoder=FOLDER"
            )
        own = {name: settings[name] for name in _SETTINGS if name in settings}
        return cls(encoder=used if encoder is None else encoder, **{**own, **options})

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        demonstration: Sequence[Any] | None = None,
        **_columns: Any,
    ) -> list[float | None]:
        """One number an answer, as TRL's `reward_funcs` want it.

        Args:
            prompts: strings or chat lists, [n]; equal prompts belong together.
            completions: strings or chat lists, [n].
            demonstration: a good answer to each prompt, [n], or None.

        Returns:
            [n]; 0 for an empty answer, None where there is nothing to compare with.

        Raises:
            DataError: lengths differ, or a prompt has another number of answers than `num_generations`.
        """
        if len(prompts) != len(completions):
            raise DataError(
                f"prompts and completions must have one length, got {len(prompts)} and {len(completions)}"
            )  # fmt: skip
        groups = self._groups(prompts)
        texts = [completion_text(completion) for completion in completions]
        ranked = [rows for rows in groups if sum(bool(texts[row].strip()) for row in rows) > 1]
        rewards: list[float | None] = [None] * len(texts)
        if not ranked:
            return rewards
        shown = [None if demonstration is None else _text(demonstration[rows[0]]) for rows in ranked]
        values = self._values([prompts[rows[0]] for rows in ranked], [[texts[row] for row in rows] for rows in ranked],
                              shown)  # fmt: skip
        for rows, found in zip(ranked, values, strict=True):
            for row, value in zip(rows, found, strict=True):
                rewards[row] = float(value)
        return rewards

    def _groups(self, prompts: Sequence[Any]) -> list[list[int]]:
        groups: dict[str, list[int]] = {}
        for row, prompt in enumerate(prompts):
            groups.setdefault(prompt_key(prompt), []).append(row)
        for rows in groups.values():
            if self.num_generations is not None and len(rows) % self.num_generations:
                raise DataError(
                    f"a rank needs all answers to a prompt in one call: num_generations={self.num_generations}, but "
                    f"{len(rows)} of them came (row {rows[0]}). Let per_device_train_batch_size be a multiple of "
                    "num_generations"
                )
        return list(groups.values())

    def _values(
        self, prompts: list[Any], answers: list[list[str]], demonstrations: list[str | None]
    ) -> list[NDArray[np.float64]]:
        """Of every group, one number an answer."""
        candidates = collect_candidates(prompts, answers, demonstrations)
        features = make_features(candidates, self.encoder, similarity=self.similarity, language=self.language)
        scores, _ = score_answers(candidates, features, self.graph)
        found = []
        for p, texts in enumerate(answers):
            rows = slice(candidates.offsets[p], candidates.offsets[p + 1])
            values = np.zeros(len(texts))
            values[candidates.response_index[rows]] = self._of_group(scores[rows])
            found.append(values)
        return found

    def _of_group(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.value == "score":
            return scores * len(scores)
        scores = np.round(scores, _TIE_DECIMALS)  # equal answers get equal rewards
        beaten = (scores[:, None] > scores).sum(axis=1) + 0.5 * ((scores[:, None] == scores).sum(axis=1) - 1)
        return beaten / (len(scores) - 1)

    def compute_score(
        self,
        data_sources: Sequence[Any] | None = None,
        solution_strs: Sequence[str] | None = None,
        ground_truths: Sequence[Any] | None = None,
        extra_infos: Sequence[Any] | None = None,
        **_options: Any,
    ) -> list[float]:
        """verl's batched reward manager; the ground truths are the demonstrations where they are texts.

        Raises:
            ConfigError: called for one answer, which has no rank.
            DataError: a prompt has fewer than two answers that are not empty.
        """
        if solution_strs is None:
            raise ConfigError("a rank needs all answers of a prompt: set verl's reward manager to 'batch'")
        from rlsft.integrations.prompts import prompt_of

        prompts = [prompt_of(info) for info in extra_infos or [{}] * len(solution_strs)]
        shown = ground_truths if ground_truths is not None and all(isinstance(x, str) for x in ground_truths) else None
        rewards = self(prompts, list(solution_strs), demonstration=shown)
        if None in rewards:
            raise DataError(
                f"answer {rewards.index(None)} has no other answer to its prompt to be compared with; let rollout.n be "
                "at least 2"
            )
        return [float(reward) for reward in rewards if reward is not None]


def _text(value: Any) -> str | None:
    return None if value is None else completion_text(value)
