"""Files of a ranking: round trip, column types, and TRL's trainers on them unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification

from rlsft.artifacts import read_jsonl
from rlsft.errors import DataError
from rlsft.ranking import RankedResponses, rank_responses
from tests.support.models import tiny_config, tiny_model, tiny_tokenizer

ANSWERS = ["Hi there! How are you?", "Hi. Who is this?", "Hello! I am not sure.", "I am fine. You are late.", "Hi!"]
CHAT = [{"role": "user", "content": "Hello?"}]


def ranking(prompt: Any = "Hello? ") -> RankedResponses:
    return rank_responses([prompt], [ANSWERS], demonstrations=["Hi! How are you?"], noise_rate=0.5, rank_interval=1)


def test_round_trip(tmp_path: Path) -> None:
    ranked = ranking()
    paths = ranked.save(tmp_path / "ranked")
    assert {path.name for path in paths.values()} == {
        *("ranked.jsonl", "ranked.parquet", "pairs.jsonl", "pairs.parquet", "explanations.jsonl", "summary.json")
    }
    back = RankedResponses.load(tmp_path / "ranked")
    assert back.rows == ranked.rows
    assert back.pairs == ranked.pairs
    assert back.summary() == ranked.summary()
    assert back.explain(0, 3) == ranked.explain(0, 3)
    with pytest.raises(DataError, match="no explanation for response 9 to prompt 0"):
        back.explain(0, 9)


def test_two_saves_are_byte_equal(tmp_path: Path) -> None:
    first, second = ranking().save(tmp_path / "a"), ranking().save(tmp_path / "b")
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes(), name


def test_columns_come_in_the_promised_order(tmp_path: Path) -> None:
    paths = ranking().save(tmp_path)
    columns = ["prompt", "completion", "rank", "score", "cluster", "representative"]
    assert pq.read_schema(paths["ranked_parquet"]).names[:6] == columns
    assert list(read_jsonl(paths["ranked_jsonl"])[0])[:6] == columns
    for path in (paths["pairs_parquet"], paths["pairs_jsonl"]):
        names = pq.read_schema(path).names if path.suffix == ".parquet" else list(read_jsonl(path)[0])
        assert names[:3] == ["prompt", "chosen", "rejected"]
        assert "margin" not in names  # TRL would train on it


def test_parquet_and_jsonl_hold_the_same(tmp_path: Path) -> None:
    ranked = ranking(CHAT)
    paths = ranked.save(tmp_path)
    assert pq.read_table(paths["ranked_parquet"]).to_pylist() == read_jsonl(paths["ranked_jsonl"]) == ranked.rows
    assert pq.read_table(paths["pairs_parquet"]).to_pylist() == read_jsonl(paths["pairs_jsonl"]) == ranked.pairs


def test_no_pairs_still_make_typed_files(tmp_path: Path) -> None:
    ranked = rank_responses(["p"], [["same", "same"]])
    schema = pq.read_schema(ranked.save(tmp_path)["pairs_parquet"])
    assert str(schema.field("chosen").type) == str(schema.field("noise").type) == "string"
    assert ranked.pairs_dataset().num_rows == 0
    assert ranked.to_dataset().num_rows == 2


def test_datasets_hold_rows_and_pairs() -> None:
    ranked = ranking()
    assert ranked.to_dataset().to_list() == ranked.rows
    assert ranked.pairs_dataset().to_list() == ranked.pairs


def test_a_folder_without_a_ranking_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no saved ranking: ranked\.jsonl is missing"):
        RankedResponses.load(tmp_path)


@pytest.mark.parametrize("prompt", ["Hello? ", CHAT], ids=["string", "chat"])
@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_trl_takes_the_pairs_unchanged(tmp_path: Path, prompt: Any, kind: str) -> None:
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    ranked = ranking(prompt)
    paths = ranked.save(tmp_path / "ranked")
    file = paths["pairs_parquet"] if kind == "parquet" else paths["pairs_jsonl"]
    pairs = load_dataset(kind, data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    common: dict[str, Any] = {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    scorer = AutoModelForSequenceClassification.from_config(tiny_config("llama", num_labels=1))
    reward = RewardTrainer(
        model=scorer,
        args=RewardConfig(output_dir=str(tmp_path / "reward"), **common),
        train_dataset=pairs,
        processing_class=tiny_tokenizer(),
    )
    dpo = DPOTrainer(
        model=tiny_model("llama"),
        ref_model=tiny_model("llama"),  # else TRL loads one from the name of the model's folder
        args=DPOConfig(output_dir=str(tmp_path / "dpo"), **common),
        train_dataset=pairs,
        processing_class=tiny_tokenizer(),
    )
    for trainer in (reward, dpo):
        assert len(trainer.train_dataset) == len(ranked.pairs)
        assert trainer.train().training_loss > 0
    first = reward.train_dataset[0]
    chosen = ranked.pairs[0]["chosen"] if isinstance(prompt, str) else ranked.pairs[0]["chosen"][0]["content"]
    assert chosen in tiny_tokenizer().decode(first["chosen_ids"])
