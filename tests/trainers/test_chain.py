"""The chain under STR and RFT on a method without models: order, reuse, redo, stops, and what a result depends on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlsft.errors import ConfigError, RunError
from rlsft.trainers import RFTConfig, RFTTrainer, STRConfig, STRTrainer
from rlsft.trainers.chain.config import ChainConfig
from rlsft.trainers.chain.stages import Stage, fields_of, settings_of
from rlsft.trainers.chain.trainer import ChainTrainer
from tests.support.models import tiny_tokenizer

PARTS = ("first", "part/second", "third")
ROWS = [{"prompt": f"question {i}", "completion": "an answer."} for i in range(30)]


@dataclass
class ToyConfig(ChainConfig):
    second_size: int = field(default=1, metadata={"help": "of the second stage"})

    def stage_names(self) -> list[str]:
        return list(PARTS)


class Toy(ChainTrainer[ToyConfig, str]):
    method = "TOY"

    def __init__(self, folder: Path, *, data: str = "d", **changes: Any) -> None:
        args = ToyConfig(str(folder), **{"use_cpu": True, "show_progress": False, **changes})
        super().__init__("nowhere", args, ROWS, processing_class=tiny_tokenizer())
        self.data = data
        self.made: list[str] = []
        self.seen: list[str] = []
        self.broken: str | None = None

    def stages(self) -> list[Stage]:
        prefixes = {"first": ("sft_",), "part/second": ("second_",), "third": ("eval_",)}
        return [
            Stage(name, f"making {name}", prefixes[name], self._maker(name), {"data": self.data} if place == 0 else {})
            for place, name in enumerate(PARTS)
        ]

    def _maker(self, name: str) -> Any:
        def make(folder: Path) -> dict[str, Any]:
            assert folder.is_dir()
            if self.broken == name:
                raise KeyboardInterrupt
            self.made.append(name)
            return {"fact": name}

        return make

    def after(self, stage: Stage) -> None:
        self.seen.append(stage.name)

    def result(self) -> str:
        return "result"

    def compared_policies(self) -> Any:
        raise NotImplementedError

    scorer = publish = compared_policies


def test_every_stage_once_and_in_order(tmp_path: Path) -> None:
    toy = Toy(tmp_path / "run")
    assert toy.train() == "result"
    assert toy.made == toy.seen == list(PARTS)
    assert toy.run.done("part/second")["fact"] == "part/second"
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert (facts["method"], facts["num_train_examples"]) == ("TOY", len(toy.train_rows))
    assert set(facts["stage_seconds"]) == set(PARTS)
    assert yaml.safe_load((tmp_path / "run/rlsft_config.yaml").read_text())["second_size"] == 1


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    broken = Toy(tmp_path / "run")
    broken.broken = "part/second"
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    assert not broken.run.is_done("part/second")
    again = Toy(tmp_path / "run")
    assert again.train() == "result"
    assert again.made == ["part/second", "third"]
    assert again.seen == list(PARTS)  # what is reused is seen too: RFT writes a round's row then


def test_stop_after_and_redo(tmp_path: Path) -> None:
    first = Toy(tmp_path / "run", stop_after="part/second")
    assert first.train() is None
    assert first.made == ["first", "part/second"]
    assert Toy(tmp_path / "run").train() == "result"
    redone = Toy(tmp_path / "run", redo="part/second")
    assert redone.train() == "result"
    assert redone.made == ["part/second", "third"]
    assert (tmp_path / "run/part/second.old1/done.json").is_file()  # nothing already written is lost


@pytest.mark.parametrize(
    ("changes", "stage", "key"),
    [
        ({"second_size": 2}, "part/second", "second_size"),
        ({"seed": 7}, "first", "seed"),
        ({"data": "other"}, "first", "data"),
        ({"eval_prompts": 3}, "third", "eval_prompts"),
    ],
)
def test_other_settings_are_refused_by_the_first_stage_they_touch(
    changes: dict[str, Any], stage: str, key: str, tmp_path: Path
) -> None:
    Toy(tmp_path / "run").train()
    with pytest.raises(RunError, match=rf"stage '{stage}' .* was made with other settings: {key} was"):
        Toy(tmp_path / "run", **changes).train()
    same = Toy(tmp_path / "run", sample_batch_size=3)  # speed alone
    same.train()
    assert same.made == []


def test_an_earlier_stage_is_a_setting_of_the_later(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    one, other = (settings_of(toy.stages(), ToyConfig("x", use_cpu=True, sft_max_examples=n)) for n in (0, 5))
    assert all(one[name] != other[name] for name in PARTS)
    assert [key for key in one["third"] if one["third"][key] != other["third"][key]] == ["stages_before"]


def test_stage_names_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"redo must be one of \['first', .*\], got 'frist'"):
        Toy(tmp_path, redo="frist")
    with pytest.raises(
        ConfigError, match=r"stop_after must be sft, .*\(NN from 01 to 03\) or evaluation, got 'round_4'"
    ):
        RFTConfig(str(tmp_path), rounds=3, stop_after="round_4", use_cpu=True)


def test_the_stages_of_the_methods_are_those_their_settings_name(tmp_path: Path) -> None:
    common: dict[str, Any] = {"use_cpu": True, "reward_eval_fraction": 0.5}
    chains = [
        STRTrainer("nowhere", STRConfig(str(tmp_path), **common), ROWS, processing_class=tiny_tokenizer()),
        RFTTrainer("nowhere", RFTConfig(str(tmp_path), rounds=3, **common), ROWS, processing_class=tiny_tokenizer()),
    ]
    for chain in chains:
        assert [stage.name for stage in chain.stages()] == chain.args.stage_names()


def test_run_folders_of_earlier_versions_stay_resumable() -> None:
    """The settings by which a stage recognises itself: one name more or less, and a finished run is refused."""
    from rlsft.trainers.chain.stages import EVALUATION_FIELDS, SFT_FIELDS, SHARED_FIELDS
    from rlsft.trainers.rft.stages import FIELDS

    def own(prefixes: tuple[str, ...], config: type) -> list[str]:
        names = fields_of(prefixes, config.__dataclass_fields__)
        assert set(SHARED_FIELDS) <= set(names)
        return sorted(set(names) - set(SHARED_FIELDS))

    sft = ["sft_args", "sft_learning_rate", "sft_max_examples", "sft_num_train_epochs", "skip_sft"]
    samples = ["sample_prompts", "sample_temperature", "sample_top_p", "samples_per_prompt"]
    evaluation = ["eval_prompts", "eval_temperature", "eval_top_p", "kpi"]
    for config in (STRConfig, RFTConfig):
        assert own(SFT_FIELDS, config) == sft
        assert own(EVALUATION_FIELDS, config) == evaluation
    assert own(("sample_", "samples_per_prompt"), STRConfig) == samples
    assert own(FIELDS["samples"], RFTConfig) == ["reward_eval_fraction", *samples]
    assert own(FIELDS["reward"], RFTConfig) == [
        "accumulate_negatives", "demonstration_weight", "pair_loss", "preference_data", "preference_weight",
        "reward_args", "reward_bound", "reward_init", "reward_learning_rate", "reward_num_train_epochs", "reward_span",
    ]  # fmt: skip
    assert own(FIELDS["policy"], RFTConfig) == [
        "center_rewards", "kl_coef", "missing_eos_penalty", "policy_args", "policy_batch_size", "policy_episodes",
        "policy_epochs", "policy_learning_rate", "policy_mini_batches", "policy_samples_per_prompt", "policy_step",
        "reference", "weight_cap", "weight_demonstrations", "weight_normalization",
    ]  # fmt: skip
