"""Folders load with the dtype asked for; every way a folder can be wrong has its own sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from rlsft.errors import ModelError
from rlsft.models import load_causal_lm, load_tokenizer, resolve_dtype
from tests.support.models import tiny_model, tiny_tokenizer

IDS = torch.tensor([[5, 17, 301, 40, 2]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_and_tokenizer_load_again(folder: Path) -> None:
    assert torch.equal(load_causal_lm(folder)(IDS).logits, tiny_model()(IDS).logits)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    assert tokenizer.chat_template == tiny_tokenizer().chat_template


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.bfloat16), ("torch.float32", torch.float32), (torch.float16, torch.float16)]
)
def test_dtypes_by_name(folder: Path, name: str | torch.dtype, dtype: torch.dtype) -> None:
    assert load_causal_lm(folder, dtype=name).dtype == dtype
    assert resolve_dtype(name) == dtype


def test_auto_is_the_dtype_of_the_files(tmp_path: Path) -> None:
    tiny_model(dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert load_causal_lm(tmp_path).dtype == torch.bfloat16


def test_a_loaded_model_passes_through() -> None:
    model = tiny_model()
    assert load_causal_lm(model) is model
    assert load_causal_lm(model, dtype="bf16").dtype == torch.bfloat16


def test_attn_implementation_reaches_the_model(folder: Path) -> None:
    assert load_causal_lm(folder, attn_implementation="eager").config._attn_implementation == "eager"


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(ModelError, match=r"dtype must be auto, float32, .* got 'int3'"):
        resolve_dtype("int3")


def test_a_missing_folder_and_a_hub_name_offline() -> None:
    with pytest.raises(ModelError, match=r"model folder /no/such does not exist$"):
        load_causal_lm("/no/such")
    with pytest.raises(
        ModelError, match=r"model folder org/name does not exist.*HF_HUB_OFFLINE is set.*hf download org/name"
    ):
        load_causal_lm("org/name")


def test_a_folder_without_config_lists_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ModelError, match=r"no config.json \(found notes.txt\)"):
        load_causal_lm(tmp_path)


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("x")
    with pytest.raises(ModelError, match=r"must be a folder as save_pretrained writes it, got the file"):
        load_causal_lm(tmp_path / "model.gguf")


def test_pickled_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    tiny_model().config.save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pickled weights \(pytorch_model.bin\).*save_pretrained\(NEW_FOLDER\)"):
        load_causal_lm(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    tiny_model().config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="holds no weights"):
        load_causal_lm(tmp_path)


def test_a_config_that_is_no_causal_lm(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(
        ModelError, match="cannot be loaded as a causal language model: Unrecognized configuration class"
    ):
        load_causal_lm(folder)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    tiny_model().config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no tokenizer could be loaded from"):
        load_tokenizer(tmp_path)


def test_no_pad_token_names_the_remedy_and_the_remedy_works(tmp_path: Path) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer().backend_tokenizer, eos_token="<|im_end|>")
    bare.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"has no pad token.*pad_token='<\|im_end\|>'"):
        load_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path, pad_token="<|im_end|>").pad_token_id == 2
    with pytest.raises(ModelError, match=r"pad_token='<nope>' is not in the tokenizer's vocabulary of 400 entries"):
        load_tokenizer(tmp_path, pad_token="<nope>")
    with pytest.raises(ModelError, match="has no pad token"):
        load_tokenizer(bare)
