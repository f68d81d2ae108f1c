"""Rows to token ids, with a mask over exactly the tokens that are trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlsft.data.formats import Text, check_text, demonstration_of, preference_of, prompt_text
from rlsft.data.templates import completed_chat, has_template, opened_chat, plain_text
from rlsft.errors import DataError


@dataclass(frozen=True)
class Encoded:
    """One sequence: its ids, which of them are trained, and what did not fit."""

    input_ids: list[int]
    completion_mask: list[bool]  # True = part of the completion, its end token included
    dropped_prompt_tokens: int = 0
    dropped_completion_tokens: int = 0  # > 0 means that the end token is lost too


def encode_demonstration(
    example: Mapping[str, Any],
    tokenizer: Any,
    *,
    max_length: int,
    system_prompt: str | None = None,
    truncate_prompt: bool = False,
) -> dict[str, Any]:
    """Token ids of one demonstration and the mask of its completion.

    The prompt is masked by its length, never by token ids, so a pad token that equals the end token loses nothing.
    The completion's end token is trained; what the template writes after it is dropped. A sequence over `max_length`
    loses the end of its completion, and with it the end token.

    Args:
        example: a row with prompt + completion, messages, text, or prompt + chosen.
        tokenizer: with a chat template (a string prompt becomes one user turn) or without (used verbatim).
        max_length: tokens of prompt and completion together.
        system_prompt: None = what the template does by itself (some write a default system message); a string = this
            system message in front of rows that have none, "" = an empty one, which silences such a default. Without
            a template it is put before the prompt, with an empty line between.
        truncate_prompt: drop the oldest prompt tokens when the prompt leaves less than half of `max_length` to the
            completion; False = a prompt that leaves no room is an error.

    Returns:
        `{"input_ids": list[int], "completion_mask": list[bool]}` of equal length, and `weight` (float) where the row
        has one.

    Raises:
        DataError: a bad row, a prompt without room for an answer, or a template that never ends a turn.
    """
    prompt, completion = demonstration_of(example)
    encoded = encode(
        prompt,
        completion,
        tokenizer,
        max_length=max_length,
        system_prompt=system_prompt,
        truncate_prompt=truncate_prompt,
    )
    row: dict[str, Any] = {"input_ids": encoded.input_ids, "completion_mask": encoded.completion_mask}
    return row | _number_of(example, "weight", at_least=0.0)


def encode_prompt(
    prompt: Text,
    tokenizer: Any,
    *,
    max_length: int | None = None,
    system_prompt: str | None = None,
    truncate_prompt: bool = False,
) -> list[int]:
    """Token ids of a prompt, ready for generation: the same ids that `encode_demonstration` puts before an answer.

    Args:
        prompt: a string or a chat list.
        tokenizer: see `encode_demonstration`.
        max_length: most tokens of the prompt; None = no limit.
        system_prompt: see `encode_demonstration`.
        truncate_prompt: keep the newest `max_length` tokens; False = a longer prompt is an error.

    Raises:
        DataError: an empty prompt, or one that is too long.
    """
    ids = _prompt_ids(check_text(prompt, "prompt"), tokenizer, system_prompt)
    if max_length is None or len(ids) <= max_length:
        return ids
    if truncate_prompt:
        return ids[-max_length:]
    raise DataError(
        f"prompt has {len(ids)} tokens, more than max_length={max_length}; "
        f"raise the limit, or set truncate_prompt to drop its oldest tokens. It begins: {_start_of(prompt)}"
    )


def encode_pair(
    example: Mapping[str, Any],
    tokenizer: Any,
    *,
    max_length: int,
    system_prompt: str | None = None,
    truncate_prompt: bool = False,
) -> dict[str, Any]:
    """Token ids of the chosen and the rejected answer, each with the prompt before it.

    Args:
        example: a row with prompt, chosen, rejected and perhaps margin and weight.
        tokenizer: see `encode_demonstration`.
        max_length: tokens of prompt and answer together.
        system_prompt: see `encode_demonstration`.
        truncate_prompt: see `encode_demonstration`.

    Returns:
        `chosen_input_ids`, `rejected_input_ids`, `chosen_completion_mask`, `rejected_completion_mask`, and `margin`
        and `weight` (floats) where the row has them.

    Raises:
        DataError: a bad row, or a prompt without room for an answer.
    """
    prompt, *answers = preference_of(example)
    row: dict[str, Any] = {}
    for side, answer in zip(("chosen", "rejected"), answers, strict=True):
        encoded = encode(
            prompt,
            answer,
            tokenizer,
            max_length=max_length,
            system_prompt=system_prompt,
            truncate_prompt=truncate_prompt,
        )
        row[f"{side}_input_ids"] = encoded.input_ids
        row[f"{side}_completion_mask"] = encoded.completion_mask
    return row | _number_of(example, "margin") | _number_of(example, "weight", at_least=0.0)


def _number_of(example: Mapping[str, Any], name: str, *, at_least: float = -math.inf) -> dict[str, float]:
    """Column `name` as a finite number, or nothing where the row has none; a weight must then be missing in all."""
    if name not in example or (example[name] is None and name == "margin"):
        return {}
    try:
        value = float(example[name])
    except (TypeError, ValueError):
        raise DataError(f"column {name!r} must be a number, got {example[name]!r}") from None
    if not (math.isfinite(value) and value >= at_least):
        smallest = "" if at_least == -math.inf else f" of at least {at_least:g}"
        raise DataError(f"column {name!r} must be a finite number{smallest}, got {example[name]!r}")
    return {name: value}


def encode(
    prompt: Text,
    completion: Text,
    tokenizer: Any,
    *,
    max_length: int,
    system_prompt: str | None = None,
    truncate_prompt: bool = False,
) -> Encoded:
    """`encode_demonstration` for a prompt and a completion at hand, saying what was cut."""
    prompt_ids, completion_ids = _both_ids(prompt, completion, tokenizer, system_prompt)
    kept_prompt, kept_completion = _fit(prompt_ids, completion_ids, max_length, truncate_prompt, prompt)
    mask = [False] * len(kept_prompt) + [True] * len(kept_completion)
    mask[0] = False  # the first token of all has nothing before it that could predict it
    return Encoded(
        input_ids=kept_prompt + kept_completion,
        completion_mask=mask,
        dropped_prompt_tokens=len(prompt_ids) - len(kept_prompt),
        dropped_completion_tokens=len(completion_ids) - len(kept_completion),
    )


def _prompt_ids(prompt: Text, tokenizer: Any, system_prompt: str | None) -> list[int]:
    if has_template(tokenizer):
        return _ids(tokenizer, opened_chat(tokenizer, prompt, system_prompt), special=False)
    return _ids(tokenizer, plain_text(prompt, system_prompt), special=True)


def _both_ids(prompt: Text, completion: Text, tokenizer: Any, system_prompt: str | None) -> tuple[list[int], list[int]]:
    """Ids of the prompt, and those after it up to and including the end token.

    Prompt and completion are encoded as one text when the prompt's ids are a prefix of the result, and apart
    otherwise: generation always starts from the prompt's own ids, and training must show the same ones.
    """
    # A row of plain text has no user turn that a template could write.
    templated = has_template(tokenizer) and prompt != ""
    if templated:
        opened, whole = completed_chat(tokenizer, prompt, completion, system_prompt)
    else:
        opened = plain_text(prompt, system_prompt)
        whole = opened + plain_text(completion)
    prompt_ids = _ids(tokenizer, opened, special=not templated)
    ids = _ids(tokenizer, whole, special=not templated)
    if ids[: len(prompt_ids)] == prompt_ids:
        ids = ids[len(prompt_ids) :]
    else:
        ids = _ids(tokenizer, whole[len(opened) :], special=False)
    return prompt_ids, ids if templated else _with_end_token(ids, tokenizer)


def _with_end_token(ids: list[int], tokenizer: Any) -> list[int]:
    if tokenizer.eos_token_id is None:
        raise DataError(
            "the tokenizer has neither a chat template nor an end token, so an answer could never end; "
            "set one: tokenizer.eos_token = '<|endoftext|>'"
        )
    return ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]


def _ids(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    # verbose=False: lengths are checked here, with the row at hand
    ids = list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])
    adds_end = special and ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token)
    return ids[:-1] if adds_end else ids


def _fit(
    prompt_ids: list[int], completion_ids: list[int], max_length: int, truncate_prompt: bool, prompt: Text
) -> tuple[list[int], list[int]]:
    if max_length < 2:
        raise DataError(f"max_length must be at least 2 (one prompt and one completion token), got {max_length}")
    if len(prompt_ids) + len(completion_ids) <= max_length:
        return prompt_ids, completion_ids
    if not truncate_prompt and len(prompt_ids) >= max_length:
        raise DataError(
            f"prompt has {len(prompt_ids)} tokens, which leaves no room for an answer within max_length={max_length}; "
            f"raise max_length, or set truncate_prompt to drop its oldest tokens. It begins: {_start_of(prompt)}"
        )
    room = max_length - len(prompt_ids)
    if truncate_prompt:
        room = max(room, max_length // 2)
    kept = completion_ids[:room]
    return prompt_ids[len(prompt_ids) - min(len(prompt_ids), max_length - len(kept)) :], kept


def _start_of(prompt: Text) -> str:
    return repr(prompt_text(prompt)[:60])
