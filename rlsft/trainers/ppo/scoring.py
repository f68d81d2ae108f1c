"""Where PPO's scores come from: a reward model, an implicit reward, a callable, or functions with TRL's signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlsft.data.collators import DemonstrationCollator
from rlsft.data.encoding import encode_prompt
from rlsft.data.templates import end_token_ids
from rlsft.errors import ConfigError, DataError, RunError
from rlsft.models import evaluation_mode, load_tokenizer
from rlsft.rewards import ImplicitReward, RewardModel, is_implicit_reward, score_texts, sequence_rewards

Prompt = str | list[dict[str, Any]]
PairReward = Callable[[list[tuple[Prompt, str]]], Sequence[float]]


@dataclass(frozen=True)
class Answers:
    """Answers as a reward sees them, one place each."""

    prompts: list[Prompt]
    completions: list[str]
    completion_ids: list[list[int]]
    columns: Mapping[str, list[Any]]  # the data set's other columns
    prompt_ids: list[list[int]] = field(default_factory=list)  # as the policy read them


@dataclass(frozen=True)
class Scored:
    """What the rewards say about answers."""

    total: NDArray[np.float64]  # [S], weighted
    by_reward: dict[str, NDArray[np.float64]]  # [S] each, unweighted
    token_rewards: list[NDArray[np.float32]] | None  # the part of `total` that stands on its own tokens, weighted


Score = Callable[[Answers], NDArray[np.float64]]


class Scorer:
    """Weighted sum of rewards; a reward that returns None for an answer leaves that answer to the others.

    Args:
        reward: a `RewardModel`, an `ImplicitReward`, or the folder of one; a callable `list[(prompt, completion)] ->
            list of floats`; or a list of functions `f(prompts=, completions=, completion_ids=, **columns) -> list of
            floats`, as TRL's trainers take them (completions are chat lists where prompts are), with implicit rewards
            among them.
        tokenizer: of the reward model, where the folder brings none; of the policy for an implicit reward.
        weights: one a reward; None = all 1.
        batch_size: answers scored together by a reward model.
        max_length: tokens of prompt and answer together.
        system_prompt: as in training the reward model.

    Raises:
        ConfigError: no such kind of reward, or another number of weights.
    """

    def __init__(
        self,
        reward: Any,
        tokenizer: Any,
        *,
        weights: Sequence[float] | None = None,
        batch_size: int = 32,
        max_length: int = 1024,
        system_prompt: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if isinstance(reward, (str, bytes)) or hasattr(reward, "__fspath__"):
            if is_implicit_reward(reward):  # type: ignore[arg-type]
                reward = ImplicitReward.from_pretrained(reward)  # type: ignore[arg-type]
            else:
                tokenizer = load_tokenizer(reward)
                reward = RewardModel.from_pretrained(reward)  # type: ignore[arg-type]
        self.rewards: dict[str, Score]
        if isinstance(reward, RewardModel):
            reward.to(device).eval().requires_grad_(False)
            self.rewards = {"reward_model": ModelReward(reward, tokenizer, batch_size, max_length, system_prompt)}
        elif isinstance(reward, ImplicitReward):
            self.rewards = {"implicit_reward": _TokenReward.of(reward, tokenizer, device)}
        elif isinstance(reward, (list, tuple)) and reward and all(_is_function(item) for item in reward):
            self.rewards = {
                name: _TokenReward.of(f, tokenizer, device) if isinstance(f, ImplicitReward) else _ColumnsReward(f)
                for name, f in _named(reward).items()
            }
        elif _is_function(reward):
            self.rewards = {_name_of(reward): _PairsReward(reward)}
        else:
            raise ConfigError(
                "reward_model must be a RewardModel (RewardModel.from_pretrained(folder)) or an ImplicitReward, the "
                "folder of one, a callable list[(prompt, completion)] -> floats, or a list of reward functions; got "
                f"{type(reward).__name__}"
            )
        self.weights = list(weights) if weights is not None else [1.0] * len(self.rewards)
        if len(self.weights) != len(self.rewards):
            raise ConfigError(
                f"reward_weights must have one weight a reward: {len(self.rewards)} rewards, got {len(self.weights)}"
            )

    @property
    def token_level(self) -> bool:
        """Whether a reward stands on the tokens and not on whole answers."""
        return any(isinstance(reward, _TokenReward) and reward.reward.token_level for reward in self.rewards.values())

    def __call__(self, answers: Answers) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        """The total score of each answer [S], and the unweighted scores of each reward; see `judge`."""
        scored = self.judge(answers)
        return scored.total, scored.by_reward

    def judge(self, answers: Answers) -> Scored:
        """Every reward of every answer.

        Raises:
            RunError: a reward gives another number of scores, infinity, or every reward passes on an answer.
        """
        count = len(answers.prompts)
        by_name: dict[str, NDArray[np.float64]] = {}
        dense: list[list[NDArray[np.float32]]] = []
        for (name, reward), weight in zip(self.rewards.items(), self.weights, strict=True):
            if isinstance(reward, _TokenReward):
                tokens = reward.tokens(name, answers)
                by_name[name] = sequence_rewards(tokens)
                if reward.reward.token_level:
                    dense.append([np.float32(weight) * row for row in tokens])
            else:
                by_name[name] = _checked(name, reward(answers), count)
        table = np.stack(list(by_name.values()))
        nobody = np.isnan(table).all(axis=0)
        if nobody.any():
            raise RunError(
                f"no reward gave a score (None or NaN) for answer {int(nobody.argmax())} of {count}: "
                f"{answers.completions[int(nobody.argmax())][:80]!r}"
            )
        total = np.nansum(table * np.asarray(self.weights)[:, None], axis=0)
        return Scored(total, by_name, [np.sum(rows, axis=0) for rows in zip(*dense, strict=True)] if dense else None)


def _checked(name: str, scores: Any, count: int) -> NDArray[np.float64]:
    values = np.array([np.nan if score is None else float(score) for score in scores], dtype=np.float64)
    if values.shape != (count,):
        raise RunError(f"reward {name!r} must return one number an answer: {count} answers, {len(values)} numbers")
    if np.isinf(values).any():
        raise RunError(f"reward {name!r} returned infinity for answer {int(np.isinf(values).argmax())}")
    return values


def _is_function(reward: Any) -> bool:
    return isinstance(reward, ImplicitReward) or (callable(reward) and not isinstance(reward, torch.nn.Module))


def _name_of(function: Any) -> str:
    if isinstance(function, ImplicitReward):
        return "implicit_reward"
    return getattr(function, "__name__", None) or type(function).__name__


def _named(functions: Sequence[Any]) -> dict[str, Any]:
    """Functions by name; a repeated name gets a number."""
    named: dict[str, Any] = {}
    for function in functions:
        name, number = _name_of(function), 2
        while name in named:
            name, number = f"{_name_of(function)}_{number}", number + 1
        named[name] = function
    return named


@dataclass(frozen=True)
class _PairsReward:
    function: PairReward

    def __call__(self, answers: Answers) -> Any:
        return self.function(list(zip(answers.prompts, answers.completions, strict=True)))


@dataclass(frozen=True)
class _ColumnsReward:
    function: Callable[..., Sequence[float | None]]

    def __call__(self, answers: Answers) -> Any:
        is_chat = bool(answers.prompts) and not isinstance(answers.prompts[0], str)
        completions: list[Any] = list(answers.completions)
        if is_chat:
            completions = [[{"role": "assistant", "content": text}] for text in completions]
        given = {"prompts": answers.prompts, "completions": completions, "completion_ids": answers.completion_ids}
        given |= {name: values for name, values in answers.columns.items() if name not in given}
        parameters = inspect.signature(self.function).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            known = {parameter.name for parameter in parameters}  # TRL asks for **kwargs; a short function is fine too
            given = {name: value for name, value in given.items() if name in known}
        return self.function(**given)


@dataclass(frozen=True)
class ModelReward:
    """A reward model as a function of answers; an answer without words is scored as its end token alone."""

    model: RewardModel
    tokenizer: Any
    batch_size: int
    max_length: int
    system_prompt: str | None

    def __call__(self, answers: Answers) -> NDArray[np.float64]:
        scores = np.empty(len(answers.prompts), dtype=np.float64)
        silent = np.array([not text.strip() for text in answers.completions], dtype=bool)
        for places, score in ((np.flatnonzero(~silent), self._score), (np.flatnonzero(silent), self._score_silence)):
            if len(places):
                scores[places] = score([answers.prompts[i] for i in places], [answers.completions[i] for i in places])
        return scores

    def _score(self, prompts: list[Prompt], completions: list[str]) -> NDArray[np.float64]:
        try:
            return score_texts(
                self.model, self.tokenizer, prompts, completions, batch_size=self.batch_size,
                max_length=self.max_length, system_prompt=self.system_prompt, truncate_prompt=True,
            )  # fmt: skip
        except DataError as error:
            raise DataError(f"the reward model cannot score an answer: {error}") from error

    def _score_silence(self, prompts: list[Prompt], completions: list[str]) -> NDArray[np.float64]:
        """An answer without words, which a demonstration must not be but a policy may give: prompt, then end token."""
        end = end_token_ids(self.tokenizer)[:1]
        limit = self.max_length - len(end)
        encoded = [
            encode_prompt(
                prompt, self.tokenizer, max_length=limit, system_prompt=self.system_prompt, truncate_prompt=True
            )
            for prompt in prompts
        ]
        rows = [{"input_ids": ids + end, "completion_mask": [False] * len(ids) + [True] * len(end)} for ids in encoded]
        collate = DemonstrationCollator(self.tokenizer.pad_token_id)
        device = next(self.model.parameters()).device
        scores = []
        with torch.no_grad(), evaluation_mode(self.model):
            for start in range(0, len(rows), self.batch_size):
                batch = {k: v.to(device) for k, v in collate(rows[start : start + self.batch_size]).items()}
                scores.append(self.model.score(batch["input_ids"], batch["attention_mask"]).double().cpu())
        return torch.cat(scores).numpy()


@dataclass(frozen=True)
class _TokenReward:
    """An implicit reward of the tokens as they were drawn: nothing is encoded anew, and no end token is added."""

    reward: ImplicitReward

    @classmethod
    def of(cls, reward: ImplicitReward, tokenizer: Any, device: torch.device | str) -> _TokenReward:
        if tokenizer is not None and tokenizer.get_vocab() != reward.tokenizer.get_vocab():
            raise ConfigError(
                "an ImplicitReward scores the policy's own tokens, but its tokenizer has another vocabulary; take "
                "checkpoints of the policy's family, or score texts: "
                "reward_model=lambda pairs: reward.score(*map(list, zip(*pairs)))"
            )
        reward.to(device).eval().requires_grad_(False)
        return cls(reward)

    def __call__(self, answers: Answers) -> NDArray[np.float64]:
        return sequence_rewards(self.tokens("implicit_reward", answers))

    def tokens(self, name: str, answers: Answers) -> list[NDArray[np.float32]]:
        rows = [
            {"input_ids": [*prompt, *drawn], "completion_mask": [False] * len(prompt) + [True] * len(drawn)}
            for prompt, drawn in zip(answers.prompt_ids, answers.completion_ids, strict=True)
        ]
        rewards = self.reward.rewards_of_rows(rows)
        for number, row in enumerate(rewards):
            if not np.isfinite(row).all():
                raise RunError(
                    f"reward {name!r} is not finite at token {int(np.isfinite(row).argmin())} of answer {number}; a "
                    "checkpoint of it is broken, or gives a drawn token no probability at all"
                )
        return rewards


def check_reward(reward: Any, policy: torch.nn.Module) -> None:
    """Refuse an implicit reward that shares weights with the policy: it would move with it, and freeze it.

    Raises:
        ConfigError: a weight is shared.
    """
    for item in reward if isinstance(reward, (list, tuple)) else [reward]:
        if isinstance(item, ImplicitReward) and set(map(id, policy.parameters())) & set(map(id, item.parameters())):
            raise ConfigError(
                "the ImplicitReward shares weights with the policy that is trained, so it would change with every "
                "step; load the reward's checkpoints again: ImplicitReward.from_checkpoints(POLICY, REFERENCE)"
            )
