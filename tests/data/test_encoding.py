"""Exactly the completion and its end token are trained, whatever the template, the tokenizer and the length."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from rlsft.data import DemonstrationCollator, encode, encode_demonstration, encode_pair, encode_prompt, end_token_ids
from rlsft.errors import DataError
from tests.support.models import CHAT_TEMPLATE, tiny_tokenizer

EOS = 2
DEFAULT_SYSTEM = (  # as SmolLM2's template does
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    + CHAT_TEMPLATE
)


def tokenizer_with(template: str | None) -> Any:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


def trained(row: dict[str, list[Any]], tokenizer: Any) -> str:
    return tokenizer.decode([i for i, keep in zip(row["input_ids"], row["completion_mask"], strict=True) if keep])


def whole(ids: list[int], tokenizer: Any) -> str:
    return tokenizer.decode(ids)


@pytest.mark.parametrize(
    "example",
    [
        {"prompt": "How are you?", "completion": "I am fine."},
        {"prompt": [{"role": "user", "content": "How are you?"}], "completion": "I am fine."},
        {"messages": [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "I am fine."}]},
        {"prompt": "How are you?", "chosen": "I am fine.", "rejected": "No."},
    ],
)
def test_every_format_trains_the_answer_and_its_end_token(example: dict[str, Any]) -> None:
    tokenizer = tiny_tokenizer()
    row = encode_demonstration(example, tokenizer, max_length=100)
    assert trained(row, tokenizer) == "I am fine.<|im_end|>"
    expected = "<|im_start|>user\nHow are you?<|im_end|>\n<|im_start|>assistant\nI am fine.<|im_end|>"
    assert whole(row["input_ids"], tokenizer) == expected  # the newline after the end token is dropped
    assert row["input_ids"][-1] == EOS


def test_prompt_tokens_before_the_answer_are_those_that_generation_starts_from() -> None:
    tokenizer = tiny_tokenizer()
    row = encode_demonstration({"prompt": "How are you?", "completion": "Fine."}, tokenizer, max_length=100)
    prompt = encode_prompt("How are you?", tokenizer)
    assert row["input_ids"][: len(prompt)] == prompt
    assert row["completion_mask"] == [False] * len(prompt) + [True] * (len(row["input_ids"]) - len(prompt))


def test_end_tokens_inside_the_prompt_are_not_trained() -> None:
    tokenizer = tiny_tokenizer()
    turns = [
        {"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    ]
    row = encode_demonstration({"messages": turns}, tokenizer, max_length=200)
    assert row["input_ids"].count(EOS) == 4
    assert trained(row, tokenizer) == "d<|im_end|>"


def test_two_assistant_turns_at_the_end_are_both_trained() -> None:
    tokenizer = tiny_tokenizer()
    turns = [{"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("assistant", "c"))]
    row = encode_demonstration({"messages": turns}, tokenizer, max_length=200)
    assert trained(row, tokenizer) == "b<|im_end|>\n<|im_start|>assistant\nc<|im_end|>"


@pytest.mark.parametrize("answer", ["im_end", "assistant", "<|im_end|>", "rlsft", "  spaces  "])
def test_answers_that_look_like_the_template(answer: str) -> None:
    tokenizer = tiny_tokenizer()
    row = encode_demonstration({"prompt": "hi", "completion": answer}, tokenizer, max_length=100)
    assert trained(row, tokenizer) == answer + "<|im_end|>"


def test_the_end_label_survives_collation_with_pad_equal_to_eos() -> None:  # C10
    tokenizer = tiny_tokenizer()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == EOS
    rows = [
        encode_demonstration({"prompt": "hi", "completion": text}, tokenizer, max_length=100)
        for text in ("Yes.", "No, never.")
    ]
    for side in ("left", "right"):
        batch = DemonstrationCollator(tokenizer.pad_token_id, padding_side=side)(rows)  # type: ignore[arg-type]
        for ids, mask, row in zip(batch["input_ids"], batch["completion_mask"], rows, strict=True):
            assert ids[mask].tolist()[-1] == EOS
            assert ids[mask].tolist() == [
                i for i, keep in zip(row["input_ids"], row["completion_mask"], strict=True) if keep
            ]


@pytest.mark.parametrize(
    ("system_prompt", "start"),
    [
        (None, "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nhi"),
        ("", "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nhi"),
        ("Be brief.", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi"),
    ],
)
def test_a_default_system_message_can_be_kept_silenced_or_replaced(system_prompt: str | None, start: str) -> None:
    tokenizer = tokenizer_with(DEFAULT_SYSTEM)
    ids = encode_prompt("hi", tokenizer, system_prompt=system_prompt)
    assert whole(ids, tokenizer).startswith(start)
    row = encode_demonstration(
        {"prompt": "hi", "completion": "Yes."}, tokenizer, max_length=200, system_prompt=system_prompt
    )
    assert row["input_ids"][: len(ids)] == ids
    assert trained(row, tokenizer) == "Yes.<|im_end|>"


def test_a_rows_own_system_message_wins() -> None:
    tokenizer = tokenizer_with(DEFAULT_SYSTEM)
    chat = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "hi"}]
    text = whole(encode_prompt(chat, tokenizer, system_prompt="Other."), tokenizer)
    assert "Mine." in text
    assert "Other." not in text


def test_without_a_template_text_is_verbatim_and_gets_one_end_token() -> None:
    tokenizer = tokenizer_with(None)
    row = encode_demonstration({"prompt": "Q: hi\nA:", "completion": " hello"}, tokenizer, max_length=50)
    assert whole(row["input_ids"], tokenizer) == "Q: hi\nA: hello<|im_end|>"
    assert trained(row, tokenizer) == " hello<|im_end|>"
    again = encode_demonstration({"prompt": "Q: hi\nA:", "completion": " hello<|im_end|>"}, tokenizer, max_length=50)
    assert again == row


def test_a_merge_over_the_boundary_is_undone() -> None:
    """`wea`+`ther` merge in this vocabulary: the prompt's own ids must come first all the same."""
    tokenizer = tokenizer_with(None)
    prompt = tokenizer("wea")["input_ids"]
    assert tokenizer("weather")["input_ids"][: len(prompt)] != prompt, "nothing merges, so nothing is tested"
    row = encode_demonstration({"prompt": "wea", "completion": "ther"}, tokenizer, max_length=50)
    assert row["input_ids"][: len(prompt)] == prompt == encode_prompt("wea", tokenizer)
    assert trained(row, tokenizer) == "ther<|im_end|>"


def test_tokens_that_the_tokenizer_adds_stand_once_and_outside_the_answer() -> None:
    tokenizer = tokenizer_with(None)
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", EOS)]
    )
    assert tokenizer("a")["input_ids"][-1] == EOS
    row = encode_demonstration({"prompt": "Q:", "completion": " hello"}, tokenizer, max_length=50)
    assert whole(row["input_ids"], tokenizer) == "<|im_start|>Q: hello<|im_end|>"
    assert trained(row, tokenizer) == " hello<|im_end|>"
    assert whole(encode_prompt("Q:", tokenizer), tokenizer) == "<|im_start|>Q:"


def test_plain_text_trains_all_but_its_first_token() -> None:
    for tokenizer in (tokenizer_with(None), tiny_tokenizer()):
        row = encode_demonstration({"text": "Hello! How are you?"}, tokenizer, max_length=50)
        assert whole(row["input_ids"], tokenizer) == "Hello! How are you?<|im_end|>"
        assert row["completion_mask"] == [False] + [True] * (len(row["input_ids"]) - 1)


def test_a_system_prompt_without_a_template_stands_before_the_prompt() -> None:
    tokenizer = tokenizer_with(None)
    assert whole(encode_prompt("hi", tokenizer, system_prompt="Be brief."), tokenizer) == "Be brief.\n\nhi"


def test_a_chat_list_needs_a_template() -> None:
    with pytest.raises(DataError, match="the row is a chat list, but the tokenizer has no chat template"):
        encode_prompt([{"role": "user", "content": "hi"}], tokenizer_with(None))


def test_no_template_and_no_end_token_is_an_error() -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer().backend_tokenizer)
    with pytest.raises(DataError, match="neither a chat template nor an end token"):
        encode_demonstration({"prompt": "a", "completion": "b"}, bare, max_length=50)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, None])
def test_japanese_comes_back_whole(template: str | None) -> None:
    tokenizer = tokenizer_with(template)
    example = {"prompt": "今日は天気がいいですね。", "completion": "はい、公園へ行きましょう！"}
    row = encode_demonstration(example, tokenizer, max_length=200)
    assert trained(row, tokenizer) == "はい、公園へ行きましょう！<|im_end|>"
    assert example["prompt"] in whole(row["input_ids"], tokenizer)


def test_a_long_completion_loses_its_end() -> None:
    tokenizer = tiny_tokenizer()
    full = encode("hi", "one two three four five six seven", tokenizer, max_length=100)
    assert full.dropped_completion_tokens == full.dropped_prompt_tokens == 0
    cut = encode("hi", "one two three four five six seven", tokenizer, max_length=len(full.input_ids) - 1)
    assert cut.dropped_completion_tokens == 1
    assert cut.input_ids == full.input_ids[:-1]
    assert cut.input_ids[-1] != EOS
    exact = encode("hi", "one two three four five six seven", tokenizer, max_length=len(full.input_ids))
    assert exact == full


def test_a_prompt_that_fills_the_context_is_an_error_or_loses_its_oldest_tokens() -> None:
    tokenizer = tiny_tokenizer()
    prompt, completion = "a long question " * 10, "yes it is so"
    full = encode(prompt, completion, tokenizer, max_length=500)
    length = len(full.input_ids) - sum(full.completion_mask)
    with pytest.raises(
        DataError, match=f"prompt has {length} tokens, which leaves no room .* max_length=30.*truncate_prompt"
    ):
        encode_demonstration({"prompt": prompt, "completion": completion}, tokenizer, max_length=30)
    with pytest.raises(DataError, match=f"leaves no room for an answer within max_length={length}"):
        encode(prompt, completion, tokenizer, max_length=length)
    assert sum(encode(prompt, completion, tokenizer, max_length=length + 1).completion_mask) == 1
    cut = encode(prompt, completion, tokenizer, max_length=30, truncate_prompt=True)
    answer = full.input_ids[length:]
    kept = answer[:15]
    assert cut.input_ids == full.input_ids[length - (30 - len(kept)) : length] + kept
    assert len(cut.input_ids) == 30
    assert cut.dropped_prompt_tokens == length - (30 - len(kept))


def test_prompts_for_generation_have_a_limit_too() -> None:
    tokenizer = tiny_tokenizer()
    ids = encode_prompt("a long question " * 10, tokenizer)
    with pytest.raises(DataError, match=f"prompt has {len(ids)} tokens, more than max_length=20"):
        encode_prompt("a long question " * 10, tokenizer, max_length=20)
    assert encode_prompt("a long question " * 10, tokenizer, max_length=20, truncate_prompt=True) == ids[-20:]
    assert encode_prompt("a long question " * 10, tokenizer, max_length=len(ids)) == ids
    with pytest.raises(DataError, match="column 'prompt' is empty"):
        encode_prompt("", tokenizer)


def test_a_max_length_without_room_is_refused() -> None:
    with pytest.raises(DataError, match="max_length must be at least 2"):
        encode("a", "b", tiny_tokenizer(), max_length=1)


def test_a_pair_shares_its_prompt_and_keeps_its_margin() -> None:
    tokenizer = tiny_tokenizer()
    row = encode_pair({"prompt": "hi", "chosen": "Yes.", "rejected": "No.", "margin": "0.5"}, tokenizer, max_length=99)
    prompt = encode_prompt("hi", tokenizer)
    for side, text in (("chosen", "Yes.<|im_end|>"), ("rejected", "No.<|im_end|>")):
        assert row[f"{side}_input_ids"][: len(prompt)] == prompt
        assert whole(row[f"{side}_input_ids"][len(prompt) :], tokenizer) == text
        assert sum(row[f"{side}_completion_mask"]) == len(row[f"{side}_input_ids"]) - len(prompt)
    assert row["margin"] == 0.5
    assert "margin" not in encode_pair({"prompt": "hi", "chosen": "a", "rejected": "b"}, tokenizer, max_length=99)
    with pytest.raises(DataError, match="column 'margin' must be a number, got 'big'"):
        encode_pair({"prompt": "hi", "chosen": "a", "rejected": "b", "margin": "big"}, tokenizer, max_length=99)


def test_a_template_that_never_ends_a_turn_is_named_by_its_line() -> None:
    template = (
        "{% for m in messages %}\n{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(DataError, match=r"no special token after an assistant turn.*Template line 2: .*m\['content'\]"):
        encode_demonstration({"prompt": "a", "completion": "b"}, tokenizer_with(template), max_length=50)


def test_a_template_whose_beginning_changes_is_named() -> None:
    template = CHAT_TEMPLATE.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>{% endif %}")
    with pytest.raises(
        DataError, match=r"another beginning when the answer is there.*Template line \d+: .*add_generation"
    ):
        encode_demonstration({"prompt": "a", "completion": "b"}, tokenizer_with(template), max_length=50)


def test_a_template_that_changes_or_drops_the_answer_is_named() -> None:
    shouting = CHAT_TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'] | upper }}")
    with pytest.raises(DataError, match="drops the assistant's text"):
        encode_demonstration({"prompt": "a", "completion": "Hello"}, tokenizer_with(shouting), max_length=50)
    cut = CHAT_TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'].replace('Hello', 'Bye') }}")
    with pytest.raises(DataError, match="does not write the completion as it is: 'Hello' became 'Bye"):
        encode_demonstration({"prompt": "a", "completion": "Hello"}, tokenizer_with(cut), max_length=50)


def test_a_template_that_trims_is_fine() -> None:
    tokenizer = tokenizer_with(CHAT_TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'] | trim }}"))
    row = encode_demonstration({"prompt": " a ", "completion": "  b\n"}, tokenizer, max_length=50)
    assert trained(row, tokenizer) == "b<|im_end|>"


def test_a_template_that_refuses_a_role_says_so() -> None:
    template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT_TEMPLATE
    )
    with pytest.raises(DataError, match="refuses a conversation with the roles system, user: no system role"):
        encode_prompt("a", tokenizer_with(template), system_prompt="Be brief.")


def test_the_end_of_turn_token_may_differ_from_the_end_token() -> None:
    """As in Gemma, whose turns end with <end_of_turn> while its end token is <eos>."""
    tokenizer = tokenizer_with(CHAT_TEMPLATE.replace("<|im_end|>", "<|endoftext|>"))
    assert end_token_ids(tokenizer) == [0, EOS]
    row = encode_demonstration({"prompt": "a", "completion": "b"}, tokenizer, max_length=50)
    assert row["input_ids"][-1] == 0
    assert row["completion_mask"][-1]
    assert end_token_ids(tiny_tokenizer()) == [EOS]
    assert end_token_ids(tokenizer_with(None)) == [EOS]
