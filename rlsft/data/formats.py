"""Which columns a dataset has, and each row as prompt and answer whatever the format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

from rlsft.errors import DataError

Message = Mapping[str, Any]  # {"role": "user" | "assistant" | "system" | …, "content": str}
Text = str | Sequence[Message]  # a string, or a chat list
Format = Literal["prompt_completion", "messages", "text", "preference", "prompt"]

# The first format whose columns are all there wins.
_COLUMNS_OF: dict[Format, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"),
    "prompt_completion": ("prompt", "completion"),
    "messages": ("messages",),
    "text": ("text",),
    "prompt": ("prompt",),
}
KNOWN_COLUMNS = ("prompt", "completion", "messages", "text", "chosen", "rejected", "margin")
# Names that other projects use, so that the hint of a column_map guesses right.
_FOREIGN_NAMES: dict[str, tuple[str, ...]] = {
    "prompt": ("question", "instruction", "input", "query", "context", "source", "utterance", "user"),
    "completion": ("answer", "output", "response", "reply", "target", "real", "assistant", "label"),
    "messages": ("conversation", "conversations", "dialog", "dialogue", "chat", "turns"),
    "chosen": ("real", "preferred", "better", "win", "accepted"),
    "rejected": ("generated", "dispreferred", "worse", "lose"),
}


def detect_format(column_names: Iterable[str]) -> Format:
    """The format of a dataset from its column names.

    `chosen`+`rejected` is "preference", `prompt`+`completion`, `messages` and `text` are demonstrations, `prompt`
    alone is "prompt". Other columns are allowed.

    Raises:
        DataError: none of these; the message lists the columns and proposes a column_map.
    """
    columns = list(column_names)
    for name, needed in _COLUMNS_OF.items():
        if set(needed) <= set(columns):
            return name
    raise DataError(
        f"no known format: found the columns {', '.join(map(repr, columns)) or '(none)'}; expected prompt + "
        f"completion, "
        f"messages, text, prompt + chosen + rejected, or prompt. Say which of yours is which: "
        f"column_map={_example_map(columns)!r}"
    )


def require_columns(column_names: Iterable[str], wanted: Iterable[str], *, source: object = "the data") -> None:
    """Check that every wanted column is there.

    Raises:
        DataError: names the missing column, the columns found, the nearest one, and a column_map that would mend it.
    """
    columns = list(column_names)
    for name in wanted:
        if name in columns:
            continue
        nearest = nearest_column(name, columns)
        hint = f"; did you mean {nearest!r}?" if nearest else "."
        raise DataError(
            f"{source} has no column {name!r} (found {', '.join(map(repr, columns)) or 'none'}){hint} "
            f"Map it: column_map='{name}={nearest or 'YOUR_COLUMN'}'"
        )


def nearest_column(name: str, columns: Sequence[str]) -> str | None:
    """The column that most probably means `name`: a foreign name of it, or the closest spelling; None = no idea."""
    lowered = {column.lower(): column for column in columns}
    for candidate in (name, *_FOREIGN_NAMES.get(name, ())):
        if candidate in lowered:
            return lowered[candidate]
    close = get_close_matches(name, list(lowered), n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def _example_map(columns: Sequence[str]) -> str:
    prompt = nearest_column("prompt", columns)
    rest = [column for column in columns if column != prompt]
    completion = nearest_column("completion", rest)
    fallback = iter([column for column in rest if column != completion] + ["YOUR_COLUMN", "YOUR_COLUMN"])
    return f"prompt={prompt or next(fallback)},completion={completion or next(fallback)}"


def demonstration_of(example: Mapping[str, Any]) -> tuple[Text, Text]:
    """Prompt and completion of one demonstration row, whatever its format.

    `messages` is cut before its last assistant turns; `text` has an empty prompt, so all of it is trained.

    Raises:
        DataError: an empty or wrongly typed value, or messages that do not end with an assistant turn.
    """
    if "prompt" in example and "completion" in example:
        return check_text(example["prompt"], "prompt", may_be_empty=True), _answer(example["completion"], "completion")
    if example.get("messages") is not None:
        return split_messages(example["messages"])
    if "text" in example:
        return "", check_text(example["text"], "text")
    if "chosen" in example:
        prompt, chosen, _ = preference_of(example)
        return prompt, chosen
    raise DataError(f"row has no demonstration: its columns are {', '.join(map(repr, example))}")


def as_demonstrations(examples: Iterable[Mapping[str, Any]], source: object = "the data") -> list[dict[str, Any]]:
    """Every row as `prompt` and `completion`, its other columns kept.

    Raises:
        DataError: a row that is no demonstration, by its number.
    """
    rows = []
    for number, example in enumerate(examples, start=1):
        try:
            prompt, completion = demonstration_of(example)
        except DataError as error:
            raise DataError(f"{source}, row {number}: {error}") from error
        others = {name: value for name, value in example.items() if name not in KNOWN_COLUMNS}
        rows.append({"prompt": prompt, "completion": completion, **others})
    return rows


def preference_of(example: Mapping[str, Any]) -> tuple[Text, Text, Text]:
    """Prompt, chosen and rejected of one preference row; a prompt inside both chat lists is taken out of them.

    Raises:
        DataError: a missing, empty or wrongly typed value, or two equal answers.
    """
    chosen, rejected = (_answer(example.get(side), side) for side in ("chosen", "rejected"))
    if example.get("prompt") is not None:
        prompt = check_text(example["prompt"], "prompt", may_be_empty=True)
    else:
        prompt, chosen, rejected = _shared_start(chosen, rejected)
    if chosen == rejected:
        raise DataError("chosen and rejected are the same answer, so the pair teaches nothing; drop the row")
    return prompt, chosen, rejected


def _shared_start(chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise DataError("a preference row of strings needs a 'prompt' column; map it: column_map='prompt=YOUR_COLUMN'")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == 0:
        raise DataError("chosen and rejected share no first message, so they are not answers to one prompt")
    if shared == min(len(chosen), len(rejected)):
        raise DataError("one of chosen and rejected is the start of the other, so no answer is left to compare")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def split_messages(messages: object) -> tuple[list[Message], list[Message]]:
    """A conversation cut before its last run of assistant turns: (prompt, completion).

    Raises:
        DataError: not a chat list, no assistant turn at the end, or nothing before it.
    """
    turns = check_text(messages, "messages")
    if isinstance(turns, str):
        raise DataError("messages must be a list of {'role', 'content'}, got a string; did you mean the column 'text'?")
    cut = len(turns)
    while cut and turns[cut - 1]["role"] == "assistant":
        cut -= 1
    if cut == len(turns):
        raise DataError(f"messages must end with an assistant turn to learn from, got role {turns[-1]['role']!r} last")
    if cut == 0:
        raise DataError("messages has only assistant turns: there is no prompt before the answer")
    answer = _answer(turns[cut:], "messages")
    assert not isinstance(answer, str)
    return list(turns[:cut]), list(answer)


def _answer(value: object, column: str) -> Text:
    """`value` as text to learn from; a chat list must end with words, which a mere tool call does not."""
    answer = check_text(value, column)
    if not isinstance(answer, str) and not answer[-1]["content"].strip():
        raise DataError(f"column {column!r}: the last assistant turn is empty; fill it or drop the row")
    return answer


def check_text(value: object, column: str, *, may_be_empty: bool = False) -> Text:
    """`value` if it is a string or a chat list with content, else a DataError that names the column."""
    if isinstance(value, str):
        if not value.strip() and not may_be_empty:
            raise DataError(f"column {column!r} is empty; fill the row or drop it")
        return value
    if value is None:
        raise DataError(f"column {column!r} is null; fill the row or drop it")
    if not isinstance(value, Sequence) or not all(isinstance(item, Mapping) for item in value):
        raise DataError(
            f"column {column!r} must be a string or a chat list of {{'role', 'content'}}, got {type(value).__name__}: "
            f"{str(value)[:60]!r}"
        )
    if not value:
        raise DataError(f"column {column!r} is an empty chat list; fill the row or drop it")
    return [_check_message(message, column, number) for number, message in enumerate(value)]


def _check_message(message: Message, column: str, number: int) -> Message:
    if not isinstance(message.get("role"), str) or "content" not in message:
        keys = ", ".join(map(repr, message))
        hint = " (ShareGPT's from/value must become role/content)" if {"from", "value"} <= set(message) else ""
        raise DataError(
            f"column {column!r}, message {number}: expected the keys 'role' and 'content', got {keys}{hint}"
        )
    # Arrow fills keys that only other rows have with None; a template would print them.
    return {
        **{k: v for k, v in message.items() if v is not None},
        "content": content_text(message["content"], column),
    }


def content_text(content: object, column: str = "messages") -> str:
    """The text of one message; a list of text parts is joined, an image or audio part is refused."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(isinstance(p, Mapping) and p.get("type") == "text" for p in content):
        return "".join(str(part["text"]) for part in content)
    raise DataError(f"column {column!r}: a message's content must be text, got {str(content)[:60]!r}")


def prompt_text(prompt: Text) -> str:
    """A prompt (string or chat list) as one string for people and encoders; several turns carry their role."""
    if isinstance(prompt, str):
        return prompt
    turns = [(str(message["role"]), content_text(message.get("content"))) for message in prompt]
    if len(turns) == 1:
        return turns[0][1]
    return "\n".join(f"{role}: {content}" for role, content in turns)


def completion_text(completion: Text) -> str:
    """A completion (string or chat list of assistant turns) as one string, without roles."""
    if isinstance(completion, str):
        return completion
    return "\n".join(content_text(message.get("content")) for message in completion)
