"""What ranking is given, checked: prompts, their responses and, where there are any, their demonstrations."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlsft.errors import ConfigError, DataError

Prompt = str | list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The answers that can be ranked, flat: group p holds `texts[offsets[p]:offsets[p + 1]]`."""

    prompts: list[Prompt]  # P
    texts: list[str]  # S answers that hold more than white space
    offsets: NDArray[np.int64]  # [P + 1]
    response_index: NDArray[np.int64]  # [S] position of each answer among the responses given for its prompt
    demonstrations: list[str | None]  # P
    num_empty: int = 0  # responses left out because they hold nothing but white space
    skipped: dict[int, str] = field(default_factory=dict)  # prompt -> why it makes no pairs

    @property
    def prompt_index(self) -> NDArray[np.int64]:
        """[S] which prompt each answer belongs to."""
        return np.repeat(np.arange(len(self.prompts)), np.diff(self.offsets))


def collect_candidates(
    prompts: Sequence[Prompt],
    responses: Sequence[Sequence[str]],
    demonstrations: Sequence[str | None] | None = None,
) -> Candidates:
    """Check and flatten; empty responses are left out and counted, prompts with fewer than two others are skipped.

    Raises:
        DataError: lengths differ, a text is no string, prompts mix strings and chat lists, or no prompt has two
            responses to rank.
    """
    _check_lengths(prompts, responses, demonstrations)
    _check_prompts(prompts)
    kept = [_usable(index, answers) for index, answers in enumerate(responses)]
    skipped = {index: _too_few(len(responses[index])) for index, ones in enumerate(kept) if len(ones) < 2}
    if len(skipped) == len(prompts):
        most = max((len(answers) for answers in responses), default=0)
        raise DataError(
            f"ranking compares the responses to one prompt and needs at least 2 that are not empty, but none of the "
            f"{len(prompts)} prompts has them (the longest list holds {most}); sample several a prompt"
        )
    given = [None] * len(prompts) if demonstrations is None else list(demonstrations)
    return Candidates(
        prompts=list(prompts),
        texts=[responses[p][i] for p, ones in enumerate(kept) for i in ones],
        offsets=np.array([0, *itertools.accumulate(map(len, kept))], dtype=np.int64),
        response_index=np.array([i for ones in kept for i in ones], dtype=np.int64),
        demonstrations=[_demonstration(index, text) for index, text in enumerate(given)],
        num_empty=sum(map(len, responses)) - sum(map(len, kept)),
        skipped=skipped,
    )


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return `value` when it is one of `choices`; raise `ConfigError` with the nearest one otherwise."""
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}{hint}")


def prompt_key(prompt: Prompt) -> str:
    """One string that stands for the prompt, whatever its form: what seeds are derived from."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, sort_keys=True)


def _check_lengths(
    prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], demonstrations: Sequence[str | None] | None
) -> None:
    if not len(prompts):
        raise DataError("prompts is empty: there is nothing to rank")
    for name, values in (("responses", responses), ("demonstrations", demonstrations)):
        if isinstance(values, str):
            raise DataError(f"{name} must be a list with one entry a prompt, got one string")
        if values is not None and len(values) != len(prompts):
            raise DataError(f"{name} must have one entry a prompt: got {len(values)} for {len(prompts)} prompts")


def _check_prompts(prompts: Sequence[Prompt]) -> None:
    first = type(prompts[0])
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, (str, list)):
            raise DataError(f"prompts[{index}] must be a string or a chat list, got {type(prompt).__name__}")
        if type(prompt) is not first:
            raise DataError(
                f"prompts must be all strings or all chat lists, because a column has one type: "
                f"prompts[0] is a {first.__name__}, prompts[{index}] a {type(prompt).__name__}"
            )


def _usable(prompt_index: int, answers: Sequence[str]) -> list[int]:
    """Positions of the answers that hold more than white space."""
    if isinstance(answers, str):
        raise DataError(f"responses[{prompt_index}] must be a list of strings, got one string; write [text]")
    for index, answer in enumerate(answers):
        if not isinstance(answer, str):
            raise DataError(f"responses[{prompt_index}][{index}] must be a string, got {type(answer).__name__}")
    return [index for index, answer in enumerate(answers) if answer.strip()]


def _too_few(num_given: int) -> str:
    if num_given < 2:
        return f"{num_given} response{'s' * (num_given != 1)}: ranking needs at least 2"
    return "fewer than 2 responses that are not empty"


def _demonstration(index: int, text: str | None) -> str | None:
    if text is not None and not isinstance(text, str):
        raise DataError(f"demonstrations[{index}] must be a string or None, got {type(text).__name__}")
    return text if text and text.strip() else None
