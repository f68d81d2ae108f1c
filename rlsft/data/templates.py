"""Chat templates: a prompt opened for the assistant, a conversation cut after its end-of-turn token."""

from __future__ import annotations

import re
from typing import Any

from rlsft.data.formats import Message, Text, completion_text
from rlsft.errors import DataError

_MARKER = "rlsftEndOfContent"  # letters only, so that no template's trimming or splitting touches it


def has_template(tokenizer: Any) -> bool:
    """Whether the tokenizer formats chats by itself."""
    return getattr(tokenizer, "chat_template", None) is not None


def opened_chat(tokenizer: Any, prompt: Text, system_prompt: str | None = None) -> str:
    """The prompt as the template writes it, up to where the assistant begins to speak."""
    return _render(tokenizer, _prompt_messages(prompt, system_prompt), add_generation_prompt=True)


def completed_chat(tokenizer: Any, prompt: Text, completion: Text, system_prompt: str | None = None) -> tuple[str, str]:
    """The opened prompt, and the same with the completion after it, cut right behind the end-of-turn token.

    Raises:
        DataError: the template does not put the opened prompt in front of the completion, changes the completion, or
            ends the assistant's turn without a special token, so that a model could never learn to stop.
    """
    messages = _prompt_messages(prompt, system_prompt)
    answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else list(completion)
    opened = _render(tokenizer, messages, add_generation_prompt=True)
    whole = _render(tokenizer, [*messages, *answer], add_generation_prompt=False)
    if not whole.startswith(opened):
        raise DataError(
            f"the chat template writes another beginning when the answer is there than when it is asked for: "
            f"{_first_difference(opened, whole)}. {_template_line(tokenizer, 'add_generation_prompt')}"
        )
    tail = _tail_of(tokenizer, [*messages, *answer])
    last = answer[-1]["content"].strip()
    if not whole.endswith(tail) or last not in whole[len(opened) : len(whole) - len(tail)]:
        raise DataError(
            f"the chat template does not write the completion as it is: {last[:40]!r} became "
            f"{whole[len(opened) :][:80]!r}. {_template_line(tokenizer, 'content')}"
        )
    return opened, whole[: len(whole) - len(tail) + _end_of_turn(tokenizer, tail)]


def _tail_of(tokenizer: Any, messages: list[Message]) -> str:
    """What the template writes after the content of the last message, found by writing a marker as that content."""
    marked = [*messages[:-1], {**messages[-1], "content": _MARKER}]
    _, marker, tail = _render(tokenizer, marked, add_generation_prompt=False).rpartition(_MARKER)
    if not marker:
        raise DataError(f"the chat template drops the assistant's text. {_template_line(tokenizer, 'content')}")
    return tail


def _end_of_turn(tokenizer: Any, tail: str) -> int:
    """Where the first special token of `tail` ends."""
    found = _special_pattern(tokenizer).search(tail)
    if found is None:
        raise DataError(
            f"the chat template writes no special token after an assistant turn (only {tail!r}), so a model trained "
            f"with it never learns to stop. {_template_line(tokenizer, 'content')} <- write the end token after the "
            f"content there, for instance {{{{ eos_token }}}}"
        )
    return found.end()


def _special_pattern(tokenizer: Any) -> re.Pattern[str]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    tokens = {token.content for token in added if token.special} | set(tokenizer.all_special_tokens)
    longest_first = sorted((token for token in tokens if token), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def end_token_ids(tokenizer: Any) -> list[int]:
    """Ids that end an answer: the tokenizer's end token, and the template's end-of-turn token where it differs.

    Generation has to stop at any of them; the first is the one that `encode_demonstration` trains.

    Raises:
        DataError: there is no such token, or the template ends turns without one.
    """
    ids = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    if has_template(tokenizer):
        _, text = completed_chat(tokenizer, "a", "b")
        ids.insert(0, int(tokenizer(text, add_special_tokens=False)["input_ids"][-1]))
    if not ids:
        raise DataError("the tokenizer has neither a chat template nor an end token; set tokenizer.eos_token")
    return list(dict.fromkeys(ids))


def plain_text(prompt: Text, system_prompt: str | None = None) -> str:
    """Prompt or completion for a tokenizer without a template: verbatim, after the system prompt and an empty line if
    there is one.

    Raises:
        DataError: a chat list with roles, which only a template can write.
    """
    if not isinstance(prompt, str):
        if all(message["role"] == "assistant" for message in prompt):
            return completion_text(prompt)
        raise DataError(
            "the row is a chat list, but the tokenizer has no chat template; set one (tokenizer.chat_template = ...), "
            "use a chat model, or give prompt and completion as strings"
        )
    return f"{system_prompt}\n\n{prompt}" if system_prompt else prompt


def _prompt_messages(prompt: Text, system_prompt: str | None) -> list[Message]:
    messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if system_prompt is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system_prompt})
    return messages


def _render(tokenizer: Any, messages: list[Message], *, add_generation_prompt: bool) -> str:
    from jinja2.exceptions import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except (TemplateError, TypeError, KeyError) as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        raise DataError(f"the chat template refuses a conversation with the roles {roles}: {error}") from error


def _first_difference(opened: str, whole: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(opened, whole, strict=False)) if a != b), len(whole))
    start = max(0, at - 20)
    return f"{opened[start : at + 20]!r} when asked, {whole[start : at + 20]!r} when answered"


def _template_line(tokenizer: Any, word: str) -> str:
    """The line of the template to look at, by number and text; templates on one line are cut around the word."""
    template = tokenizer.chat_template
    if not isinstance(template, str):
        return "See tokenizer.chat_template."
    lines = template.splitlines() or [""]
    number = next((i for i, line in enumerate(lines) if word in line), 0)
    at = max(0, lines[number].find(word) - 60)
    return f"Template line {number + 1}: {lines[number][at : at + 140].strip()}"
