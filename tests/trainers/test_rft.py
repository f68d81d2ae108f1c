"""The RFT chain on a world whose true reward is known: it rises with every policy step, and a kill changes nothing."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, TrainerCallback

from rlsft.artifacts import read_jsonl
from rlsft.data import encode_demonstration
from rlsft.errors import ConfigError, DataError, RunError
from rlsft.rewards import RewardModel, score_texts
from rlsft.trainers import RFTConfig, RFTTrainer
from rlsft.trainers.base import last_checkpoint
from rlsft.trainers.callbacks import RunInterrupted
from rlsft.trainers.ppo.rollout import ExperienceMaker
from rlsft.trainers.rft.monitors import Clock, round_row, write_row
from rlsft.trainers.rft.rows import prompts_of_round
from rlsft.trainers.rft.scores import BASELINE, centered_reward, policy_prompts
from rlsft.trainers.rft.stages import stage_names
from rlsft.trainers.rft.weighted import effective_share, log_ratios_of, weighted_rows
from tests.support.models import tiny_model
from tests.support.ppo import letter_model, letter_tokenizer
from tests.support.rft import letter_demonstrations, mean_true_reward, rft_settings, rft_trainer, taught_folder

LEARNING: dict[str, Any] = {
    "sample_prompts": 72,
    "samples_per_prompt": 4,
    "missing_eos_penalty": 2.0,
    "policy_learning_rate": 5e-3,
    "policy_episodes": 512,
}
QUICK: dict[str, Any] = {
    "sample_prompts": 8,
    "policy_episodes": 16,
    "policy_batch_size": 8,
    "per_device_train_batch_size": 8,
    "reward_num_train_epochs": 1,
    "policy_epochs": 1,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return taught_folder(tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def finished(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two quick rounds with evaluation."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    result = rft_trainer(base, folder, rounds=2, **QUICK).train()
    assert result is not None
    assert [row["step"] for row in result.rounds] == [1, 2]
    return folder


# ---- it learns --------------------------------------------------------------
@pytest.mark.parametrize(
    "changes",
    [
        {"policy_step": "ppo"},
        {"policy_step": "rloo"},
        {"policy_step": "apa", "kl_coef": 0.3},
        {"policy_step": "weighted_sft", "kl_coef": 1.0, "policy_epochs": 6},
    ],
    ids=lambda changes: changes["policy_step"],
)
def test_a_round_raises_the_true_reward(base: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    chain = rft_trainer(base, tmp_path / "run", stop_after="round_01/policy", **(LEARNING | changes))
    assert chain.train() is None
    before, after = (mean_true_reward(chain.models.policy(folder)) for folder in (None, chain.policy_folder(1)))
    assert before < 0.45
    assert after > before + 0.15
    (row,) = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert row["reward/accuracy"] > 0.8
    assert row["policy/reward_after"] > row["policy/reward_before"]
    assert 0.0 < row["policy/kl"] < 10.0
    assert sum(row[f"share/{kind}"] for kind in ("generation", "scoring", "training")) == pytest.approx(1, abs=1e-3)
    assert min(row[f"seconds/{kind}"] for kind in ("generation", "scoring", "training")) > 0


def test_the_papers_loss_with_a_bound_and_token_rewards_learn_too(base: str, tmp_path: Path) -> None:
    chain = rft_trainer(
        base, tmp_path / "run", stop_after="round_01/policy", policy_step="weighted_sft", policy_epochs=6,
        pair_loss="linear", reward_bound=3.0, reward_span="divergence", reward_learning_rate=3e-3,
        **{**LEARNING, "kl_coef": 0.5},
    )  # fmt: skip
    chain.train()
    scores = read_jsonl(tmp_path / "run" / "round_01" / "reward" / "scores.jsonl")
    values = [value for row in scores for value in (row["demonstration_reward"], *row["response_rewards"])]
    assert 0 < min(values) < max(values) < 3
    assert (
        mean_true_reward(chain.models.policy(chain.policy_folder(1))) > mean_true_reward(chain.models.policy()) + 0.15
    )


def test_without_adapters_every_round_is_a_whole_model(base: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    chain = rft_trainer(
        base, folder, rounds=2, use_peft=False, stop_after="round_02/policy", reference="previous", **QUICK
    )
    chain.train()
    for number in (1, 2):
        AutoModelForCausalLM.from_pretrained(folder / f"round_{number:02d}" / "policy" / "model")
        RewardModel.from_pretrained(folder / f"round_{number:02d}" / "reward" / "model")


# ---- what a run leaves --------------------------------------------------------------
def test_every_artefact_is_there(finished: Path) -> None:
    for name in (
        "run.json", "rlsft_config.yaml", "metrics.jsonl", "README.md", "report.html", "model.safetensors",
        "evaluation/generations.jsonl", "evaluation/table.json", "reward_model/model.safetensors",
        "round_01/samples/samples.jsonl", "round_01/samples/held_out.jsonl", "round_01/reward/pairs.jsonl",
        "round_01/reward/scores.jsonl", "round_02/reward/model/adapter_model.safetensors",
        "round_02/policy/model/adapter_model.safetensors", "round_02/policy/metrics.jsonl",
    ):  # fmt: skip
        assert (finished / name).is_file(), f"{name} is missing"
    assert list((finished / "plots").glob("reward.svg"))
    final = AutoModelForCausalLM.from_pretrained(finished)
    assert mean_true_reward(final) > 0
    rounds = json.loads((finished / "run.json").read_text())["rounds"]
    assert [row["step"] for row in read_jsonl(finished / "metrics.jsonl")] == [1, 2]
    assert rounds["round_02"] == read_jsonl(finished / "metrics.jsonl")[1]


def test_later_rounds_learn_from_the_pairs_of_all_and_never_from_held_out_prompts(finished: Path, base: str) -> None:
    done = [json.loads((finished / f"round_0{n}" / "reward" / "done.json").read_text()) for n in (1, 2)]
    assert done[0]["num_train_pairs"] == done[0]["num_pairs"]
    assert done[1]["num_train_pairs"] == done[0]["num_pairs"] + done[1]["num_pairs"]
    held_out = {row["prompt"] for n in (1, 2) for row in read_jsonl(finished / f"round_0{n}/samples/held_out.jsonl")}
    learned = {row["prompt"] for n in (1, 2) for row in read_jsonl(finished / f"round_0{n}/reward/pairs.jsonl")}
    assert held_out
    assert not held_out & learned
    firsts = [{row["prompt"] for row in read_jsonl(finished / f"round_0{n}/samples/samples.jsonl")} for n in (1, 2)]
    assert not firsts[0] & firsts[1]


def test_the_exported_reward_gives_the_scores_of_the_last_round(finished: Path) -> None:
    samples = read_jsonl(finished / "round_02/samples/samples.jsonl")
    scores = read_jsonl(finished / "round_02/reward/scores.jsonl")
    exported = RewardModel.from_pretrained(finished / "reward_model")
    found = score_texts(
        exported, letter_tokenizer(), [row["prompt"] for row in samples], [row["demonstration"] for row in samples]
    )
    assert found.tolist() == pytest.approx([row["demonstration_reward"] for row in scores], abs=1e-4)


# ---- stop, go on, contradict --------------------------------------------------------------
def same_files(first: Path, second: Path, names: list[str]) -> None:
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


DECIDING = [
    f"round_0{n}/{name}"
    for n in (1, 2)
    for name in (
        "samples/samples.jsonl", "reward/pairs.jsonl", "reward/scores.jsonl", "reward/model/adapter_model.safetensors",
        "policy/model/adapter_model.safetensors",
    )
]  # fmt: skip


class Killed(TrainerCallback):
    """Ends the training of a stage after its first step, with a checkpoint, as SIGTERM does."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if self.stage in args.output_dir and state.global_step == 1:
            control.should_save = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stage in args.output_dir:
            raise RunInterrupted(state.global_step, Path(args.output_dir))


@pytest.mark.parametrize("stage", ["round_01/policy", "round_02/reward"])
def test_a_run_killed_inside_a_round_equals_one_never_stopped(
    finished: Path, base: str, tmp_path: Path, stage: str
) -> None:
    folder = tmp_path / "pieces"
    with pytest.raises(RunInterrupted):
        rft_trainer(base, folder, rounds=2, callbacks=[Killed(stage)], **QUICK).train()
    assert last_checkpoint(folder / stage) is not None
    assert not (folder / stage / "done.json").exists()
    again = rft_trainer(base, folder, rounds=2, stop_after="round_02/policy", share_trunk=False, **QUICK)
    assert again.train() is None  # on separate models this time: sharing the trunk changes no bit
    same_files(finished, folder, DECIDING)


def test_a_run_killed_while_sampling_goes_on_with_the_next_prompt(finished: Path, base: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = {**QUICK, "stop_after": "round_01/samples"}
    rft_trainer(base, folder, **settings).train()
    file = folder / "round_01/samples/samples.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2]) + lines[2][:30])
    (folder / "round_01/samples/done.json").unlink()
    (folder / "round_01/samples/held_out.jsonl").unlink()
    rft_trainer(base, folder, sample_batch_size=5, **settings).train()
    same_files(finished, folder, ["round_01/samples/samples.jsonl", "round_01/samples/held_out.jsonl"])


def test_finished_rounds_are_reused_and_contradictions_are_refused(finished: Path, base: str, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("done.json")}
    assert len(before) == len(stage_names(2)) == 8
    assert rft_trainer(base, folder, rounds=2, **QUICK).train() is not None
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("done.json")} == before
    with pytest.raises(RunError, match=r"stage 'round_01/policy' .*kl_coef was 0.2, now 0.7.*--redo round_01/policy"):
        rft_trainer(base, folder, rounds=2, **{**QUICK, "kl_coef": 0.7}).train()
    with pytest.raises(RunError, match=r"stage 'round_01/reward' .*pair_loss was 'logistic', now 'linear'"):
        rft_trainer(base, folder, rounds=2, pair_loss="linear", reward_bound=1.0, **QUICK).train()
    # the reward of round 2 again: round 1 stays, the old result is set aside
    redone = rft_trainer(base, folder, rounds=2, redo="round_02/reward", stop_after="round_02/reward", **QUICK)
    redone.train()
    assert (folder / "round_02" / "reward.old1" / "done.json").exists()
    same_files(finished, folder, ["round_02/reward/model/adapter_model.safetensors"])


def test_more_rounds_go_on_from_those_there_are(finished: Path, base: str, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = (folder / "round_02/policy/done.json").stat().st_mtime_ns
    rft_trainer(base, folder, rounds=3, stop_after="round_03/samples", **QUICK).train()
    assert (folder / "round_02/policy/done.json").stat().st_mtime_ns == before
    assert (folder / "round_03/samples/done.json").exists()


def test_a_reward_may_begin_afresh(finished: Path, base: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    rft_trainer(base, folder, rounds=2, reward_init="reinit", stop_after="round_02/reward", **QUICK).train()
    name = "reward/model/adapter_model.safetensors"
    same_files(finished, folder, [f"round_01/{name}"])
    assert (folder / "round_02" / name).read_bytes() != (finished / "round_02" / name).read_bytes()


def test_without_held_out_prompts_the_training_prompts_are_measured_and_that_is_said(base: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    rft_trainer(base, folder, reward_eval_fraction=0.0, stop_after="round_01/policy", **QUICK).train()
    done = json.loads((folder / "round_01/policy/done.json").read_text())
    assert done["measured_on"] == "training prompts"
    (row,) = read_jsonl(folder / "metrics.jsonl")
    assert "reward/accuracy" not in row
    assert "policy/reward_after" in row


def test_preferences_join_the_reward(base: str, tmp_path: Path) -> None:
    rows = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": " a a a"}
        for row in letter_demonstrations(12, start=20)
    ]
    chain = rft_trainer(
        base, tmp_path / "run", preference_dataset=rows, preference_weight=2.0, stop_after="round_01/reward", **QUICK
    )
    chain.train()
    done = json.loads((tmp_path / "run/round_01/reward/done.json").read_text())
    assert done["num_train_pairs"] == done["num_pairs"] + 9  # a quarter of twelve prompts is held out
    assert 0 <= done["eval_preference_accuracy"] <= 1


# ---- parts --------------------------------------------------------------
def test_rewards_are_centred_by_prompt() -> None:
    scores = [
        {"prompt": "a", "demonstration_reward": 9.0, "response_rewards": [1.0, 3.0]},
        {"prompt": "b", "demonstration_reward": 0.0, "response_rewards": [-4.0, -8.0]},
    ]
    rows = policy_prompts(scores, center=True)
    assert [row[BASELINE] for row in rows] == [2.0, -6.0]
    reward = centered_reward(lambda prompts, texts: np.array([5.0, 5.0]))
    assert reward(["a", "b"], ["x", "y"], **{BASELINE: [2.0, -6.0]}) == [3.0, 11.0]
    assert [row[BASELINE] for row in policy_prompts(scores, center=False)] == [0.0, 0.0]


def test_rounds_walk_through_the_prompts_before_they_repeat_one() -> None:
    rows = [{"prompt": str(number)} for number in range(10)]
    seen = [[row["prompt"] for row in prompts_of_round(rows, 4, number, seed=1)] for number in (1, 2, 3)]
    assert len({*seen[0], *seen[1]}) == 8
    assert len({*seen[0], *seen[1], *seen[2]}) == 10
    assert prompts_of_round(rows, 4, 2, seed=1) == prompts_of_round(rows, 4, 2, seed=1)
    assert prompts_of_round(rows, 99, 2, seed=1) == rows


def weighted_inputs() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    samples = [
        {"prompt": "a b", "demonstration": "c f", "token_ids": [[3, 0], [4, 5]], "finish_reasons": ["stop", "length"]},
        {"prompt": "c", "demonstration": "f", "token_ids": [[6, 0], [0]], "finish_reasons": ["stop", "stop"]},
    ]
    scores = [
        {"prompt": "a b", "demonstration_reward": 2.0, "response_rewards": [1.0, 0.5]},
        {"prompt": "c", "demonstration_reward": 0.0, "response_rewards": [0.0, 0.0]},
    ]
    return samples, scores


def test_weighted_rows_keep_drawn_tokens_and_weigh_within_prompts(tmp_path: Path) -> None:
    samples, scores = weighted_inputs()
    args = rft_settings(tmp_path, policy_step="weighted_sft", kl_coef=0.5, missing_eos_penalty=0.25)
    ratios = [[0.0, 0.1], [0.0, 0.0]]
    rows = weighted_rows(samples, scores, ratios, letter_tokenizer(), args=args, max_prompt_length=18)
    assert rows[1]["input_ids"] == [1, 2, 3, 0]
    assert rows[1]["completion_mask"] == [False, False, True, True]
    assert rows[2]["input_ids"] == [1, 2, 4, 5]  # cut off: no end token that was not drawn
    encoded = encode_demonstration({"prompt": "a b", "completion": "c f"}, letter_tokenizer(), max_length=24)
    assert rows[0]["input_ids"] == encoded["input_ids"]
    raw = np.exp([2.0 / 0.5, 1.0 / 0.5, (0.5 - 0.25) / 0.5 + 0.1])
    assert [row["weight"] for row in rows[:3]] == pytest.approx((raw / raw.mean()).tolist())
    assert [row["weight"] for row in rows[3:]] == pytest.approx([1.0, 1.0, 1.0])
    own = rft_settings(tmp_path, policy_step="weighted_sft", weight_demonstrations=False, weight_normalization="round")
    rows = weighted_rows(samples, scores, None, letter_tokenizer(), args=own, max_prompt_length=18)
    assert len(rows) == 4
    assert sum(row["weight"] for row in rows) == pytest.approx(4.0)
    assert rows[0]["weight"] > rows[2]["weight"]


def test_log_ratios_are_those_of_the_drawn_tokens(tmp_path: Path) -> None:
    samples, _ = weighted_inputs()
    args = rft_settings(tmp_path)
    policy, reference = letter_model(0), letter_model(1)
    options: dict[str, Any] = {"args": args, "max_prompt_length": 18}
    found = log_ratios_of(samples, policy, reference, letter_tokenizer(), **options)
    import torch

    for row, ratios in zip(samples, found, strict=True):
        prompt = letter_tokenizer()(row["prompt"])["input_ids"]
        for answer, ratio in zip(row["token_ids"], ratios, strict=True):
            ids = torch.tensor([prompt + answer])
            sums = []
            for model in (reference, policy):
                with torch.no_grad():
                    logprobs = model(ids).logits[0].log_softmax(-1)
                sums.append(sum(float(logprobs[len(prompt) + k - 1, token]) for k, token in enumerate(answer)))
            assert ratio == pytest.approx(sums[0] - sums[1], abs=1e-5)
    assert log_ratios_of(samples, policy, policy, letter_tokenizer(), **options) == [[0.0, 0.0], [0.0, 0.0]]


def test_the_reference_is_the_one_that_was_asked_for(finished: Path, base: str) -> None:
    import torch

    from rlsft.models import hidden_states

    ids = torch.tensor([[1, 2, 3]])

    def states(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return hidden_states(model, ids, torch.ones_like(ids))

    initial, previous = (
        rft_trainer(base, finished, rounds=2, reference=name, **QUICK) for name in ("initial", "previous")
    )
    assert initial.reference_policy(1) is None  # a new adapter, switched off, is the same
    assert torch.equal(states(initial.reference_policy(2)), states(initial.models.policy()))
    assert torch.equal(states(previous.reference_policy(2)), states(previous.current_policy(2)))
    assert not torch.equal(states(previous.reference_policy(2)), states(initial.reference_policy(2)))


def test_no_round_learns_from_a_prompt_that_measures_the_reward(base: str, tmp_path: Path) -> None:
    chain = rft_trainer(base, tmp_path, rounds=9, sample_prompts=16)
    rounds = [chain.prompts_of(number) for number in range(1, 10)]
    learned = {row["prompt"] for train, _ in rounds for row in train}
    measured = {row["prompt"] for _, held_out in rounds for row in held_out}
    assert len(learned) == 72  # three quarters of 96, all of them after five rounds
    assert len(measured) == 5  # a quarter beside 16, the same ones in every round
    assert not learned & measured


def test_the_seconds_of_the_policy_step_are_told_apart(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = ExperienceMaker.draw

    def slow(self: Any, *args: Any) -> Any:
        self.seconds["generation"] += 50.0
        return draw(self, *args)

    monkeypatch.setattr(ExperienceMaker, "draw", slow)
    rft_trainer(base, tmp_path / "run", stop_after="round_01/policy", **QUICK).train()
    seconds = json.loads((tmp_path / "run/round_01/policy/done.json").read_text())["seconds"]
    assert 100.0 < seconds["generation"] < 200.0  # two iterations of answers


def test_every_draw_of_a_run_has_its_own_random_streams(base: str, tmp_path: Path) -> None:
    chain = rft_trainer(base, tmp_path, rounds=3)
    seeds = [chain.sampling(number, held_out=held_out).seed for number in (1, 2, 3) for held_out in (False, True)]
    assert len(set(seeds)) == 6


def test_effective_share_of_weights() -> None:
    assert effective_share([1.0, 1.0, 1.0]) == pytest.approx(1.0)
    assert effective_share([3.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    assert effective_share([]) == 0.0


def test_a_clock_counts_each_second_once() -> None:
    clock = Clock()
    with clock.timed("training"):
        clock.add("generation", 100.0)
        with clock.timed("scoring"):
            pass
    assert clock.seconds["generation"] == 100.0
    assert clock.seconds["training"] < 0  # 100 s that the test did not wait are taken out of it
    assert abs(clock.total) < 1.0


def test_the_row_of_a_round_replaces_that_of_an_earlier_attempt(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    part = {"seconds": {"generation": 3.0, "scoring": 1.0}}
    for kl in (1.0, 2.0):
        write_row(file, round_row(1, {"eval_accuracy": 0.5}, {"kl": kl}, [part, {"seconds": {"training": 4.0}}]))
    write_row(file, round_row(2, {}, {}, []))
    rows = read_jsonl(file)
    assert [(row["step"], row.get("policy/kl")) for row in rows] == [(1, 2.0), (2, None)]
    assert rows[0]["share/generation"] == pytest.approx(3 / 8)


# ---- errors --------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pair_loss": "linear"}, r"pair_loss='linear' needs reward_bound"),
        ({"policy_step": "grpo"}, r"policy_step must be one of ppo, apa, rloo, weighted_sft, got 'grpo'"),
        ({"policy_step": "apa", "kl_coef": 0.0}, r"policy_step='apa' divides by kl_coef"),
        ({"share_trunk": True, "use_peft": False}, r"share_trunk=True needs use_peft=True"),
        ({"preference_data": "x.jsonl"}, r"preference_weight is 0, so that no pair of it would be used"),
        ({"demonstration_weight": 0.0}, r"demonstration_weight must be > 0"),
        ({"learning_rate": 1.0}, r"learning_rate belongs to one stage: set sft_learning_rate, reward_learning_rate"),
        ({"redo": "round_03/reward"}, r"redo must be sft, round_NN/samples.*from 01 to 01.*got 'round_03/reward'"),
        ({"policy_args": {"cliprang": 0.1}}, r"PPOConfig has no field 'cliprang'.*cliprange"),
        ({"sample_temperature": 0.0}, r"sample_temperature=0 gives samples_per_prompt=2 equal answers"),
        ({"policy_episodes": 8}, r"policy_episodes \(8\) must be at least policy_batch_size \(64\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_contradictions_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rft_settings(tmp_path, **changes)


def test_bad_input_is_named(base: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model must be a folder.*got LlamaForCausalLM"):
        RFTTrainer(tiny_model(), RFTConfig(str(tmp_path), use_cpu=True), letter_demonstrations(4))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="train_dataset has no rows"):
        rft_trainer(base, tmp_path, rows=[])
    with pytest.raises(ConfigError, match="preference_weight is above 0, but there are no preferences"):
        rft_trainer(base, tmp_path, preference_weight=1.0)
    with pytest.raises(DataError, match="preference row 1: "):
        rft_trainer(base, tmp_path, preference_weight=1.0, preference_dataset=[{"prompt": "a"}])


def test_a_round_without_pairs_says_that_there_is_nothing_left_to_learn(base: str, tmp_path: Path) -> None:
    chain = rft_trainer(base, tmp_path / "run", stop_after="round_01/samples", **QUICK)
    chain.train()
    file = tmp_path / "run/round_01/samples/samples.jsonl"
    rows = [{**row, "responses": [row["demonstration"]] * 2} for row in read_jsonl(file)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="round_01 has no pairs: every answer of the policy equals its demonstration"):
        rft_trainer(base, tmp_path / "run", **QUICK).train()


def test_a_run_about_to_swing_says_so(base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {**QUICK, "reward_num_train_epochs": 40, "kl_coef": 0.5, "accumulate_negatives": False}
    with caplog.at_level(logging.WARNING):
        rft_trainer(base, tmp_path / "run", rounds=2, stop_after="round_01/reward", **settings).train()
    assert "multiply the distance to their fixed point by -1/beta = -2" in caplog.text
