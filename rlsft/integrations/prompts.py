"""Prompts and answers as verl and OpenRLHF pass them on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlsft.errors import DataError

PROMPT_KEYS = ("prompt", "raw_prompt", "question")  # of verl's extra_info, the first that is there


def prompt_of(extra_info: Any) -> Any:
    """The prompt in verl's `extra_info`, a string or a chat list.

    Raises:
        DataError: there is none; verl passes answers without their prompts.
    """
    for key in PROMPT_KEYS if isinstance(extra_info, Mapping) else ():
        prompt = extra_info.get(key)
        if prompt is not None:
            return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]
    found = sorted(extra_info) if isinstance(extra_info, Mapping) else extra_info
    raise DataError(
        f"extra_info must hold the prompt under one of {', '.join(PROMPT_KEYS)}, got {found!r}: verl passes answers "
        "without their prompts, so write the prompt into the column extra_info of the data file"
    )


def answer_of(query: str, prompt: str, number: int) -> str:
    """What stands behind the prompt in one of OpenRLHF's queries.

    Raises:
        DataError: the prompt is not in the query.
    """
    before, found, answer = query.partition(prompt)
    if not found or len(before) > 64:  # a begin token may stand before it
        raise DataError(
            f"query {number} does not begin with its prompt, so where the answer begins is unknown: "
            f"{query[:60]!r} against {prompt[:60]!r}"
        )
    return answer
