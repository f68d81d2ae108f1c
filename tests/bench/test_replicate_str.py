"""The second paper's experiment: its methods, its rules for text, its verdicts, a run that is stopped and goes on."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.replicate.rows import append
from bench.replicate.scratch import small_gpt2
from bench.replicate_str import measure, sorting
from bench.replicate_str.claims import Claim, Verdict, verdicts_of
from bench.replicate_str.judged import answers_file, compared, verdicts
from bench.replicate_str.methods import METHODS
from bench.replicate_str.paraphrase import contradiction_rate, contradicts, said_otherwise, self_consistency
from bench.replicate_str.run import run_sweep, run_task
from bench.replicate_str.small_adapters import add_bottlenecks, only_biases, trained_share
from bench.replicate_str.sorting import BUDGET, places, reordered
from bench.replicate_str.stages import OURS, PAPER, rank_reward
from bench.replicate_str.task import Task

TINY = (
    "train=24,held_out=6,steps=2,batch=8,rank_prompts=12,samples=4,reward_steps=2,episodes=16,"
    "episodes_per_iteration=16,pairs_per_prompt=2"
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pretraining and the look into WordNet that take most of a run's seconds."""
    monkeypatch.setattr(sorting, "PRETRAINING_STEPS", 2)
    monkeypatch.setattr(measure, "the_meteor", lambda: lambda references, text: 0.5)


def tiny_gpt2() -> Any:
    return small_gpt2(14, 0, width=32, layers=2, positions=32, end=2)


# ---- light fine-tuning ---------------------------------------------------------------------------------------------
def test_bottlenecks_change_nothing_until_they_are_trained() -> None:
    model, ids = tiny_gpt2().eval(), torch.arange(3, 12)[None]
    adapted = add_bottlenecks(copy.deepcopy(model), 4, seed=0)
    torch.testing.assert_close(adapted(ids).logits, model(ids).logits, rtol=0, atol=0)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all("down" in name or "up" in name or "ln_" in name for name in trained)
    assert sum("up.weight" in name for name in trained) == 4, "two a block"
    adapted(ids).logits.square().sum().backward()
    assert adapted.transformer.h[0].attn.c_proj[1].up.weight.grad.abs().sum() > 0
    assert trained_share(adapted) < 0.2


def test_bitfit_trains_biases_alone_and_wants_some() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = only_biases(tiny_gpt2())
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(name.endswith("bias") for name in trained)
    llama = LlamaForCausalLM(
        LlamaConfig(vocab_size=14, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ValueError, match="no biases to train"):
        only_biases(llama)


# ---- tasks ---------------------------------------------------------------------------------------------------------
def test_cosine_of_two_sortings_is_the_share_of_equal_places() -> None:
    a, b, c = places(["1 2 3 4 5 6", "1 2 3 6 5 4", "no digits"])
    assert a @ b / 6 == pytest.approx(4 / 6)
    assert a @ a == 6
    assert a @ c == 0
    assert c.sum() == 2
    word, zero = places(["no 1", "2 0"])
    assert word @ zero == 0, "a place has room for what is no digit"


def test_a_sorting_said_otherwise_has_the_same_digits() -> None:
    prompt = "3 1 4 1 5 9 ="
    others = reordered(prompt)
    assert others == reordered(prompt)
    assert all(sorted(other) == sorted(prompt) and other.endswith(" =") for other in others)


def test_questions_are_asked_in_the_other_templates() -> None:
    from bench.replicate_str.wordnet import TEMPLATES, asked_otherwise, question

    for word in ("quietly", "mean", "well"):
        asked = question(word)
        assert {asked, *asked_otherwise(asked)} == {template.format(word) for template in TEMPLATES}
    with pytest.raises(ValueError, match="one of the templates"):
        asked_otherwise("Who is it?")


@pytest.mark.demo
def test_words_are_asked_that_were_not_learned() -> None:
    from bench.replicate_str.wordnet import BUDGET as WORDNET
    from bench.replicate_str.wordnet import split
    from rlsft.data import assets

    if assets.wordnet() is None:
        pytest.skip("WordNet: apt-get install wordnet-base wordnet-sense-index")
    train, held_out = split(WORDNET)
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in held_out}
    assert len(held_out) == WORDNET.held_out
    assert any(len(row["references"]) > 1 for row in held_out)


# ---- rules for text ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("prompt", "others"),
    [
        ("I'm tired.", ["I am tired.", "I'm tired"]),
        ("Do you like tea?", ["Well, do you like tea?", "Do you like tea"]),
        ("I like tea", ["Well, I like tea", "I like tea."]),
    ],
)
def test_prompts_said_otherwise(prompt: str, others: list[str]) -> None:
    assert said_otherwise(prompt) == others


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("I like tea a lot", "I do not like tea a lot", True),
        ("I like tea a lot", "I like tea a lot", False),
        ("I don't like tea", "I do not like tea", False),  # both deny
        ("I like tea", "No, the weather was cold today", False),  # another subject
        ("It's not nothing to me", "It's to me", False),  # two negations are none
    ],
)
def test_contradictions_by_hand(a: str, b: str, expected: bool) -> None:
    assert contradicts(a, b) is contradicts(b, a) is expected


def test_rates_are_means_over_paraphrases() -> None:
    answers, others = ["yes it is", "red"], [["yes it is", "it is not, yes"], ["red", "blue"]]
    assert contradiction_rate(answers, others) == pytest.approx(1 / 4)
    assert self_consistency(answers, others) == pytest.approx((1 + 6 / 7 + 1 + 0) / 4)


# ---- rank as a reward ----------------------------------------------------------------------------------------------
def scores_of(ranker: Any, answers: list[tuple[str, str]], demonstrations: dict[str, str]) -> list[float]:
    task = Task("t", 0, None, None, [], [], places, 32, 12, reordered, BUDGET, Path())
    (reward,) = rank_reward(task, ranker)
    prompts = [prompt for prompt, _ in answers]
    return reward(prompts, [text for _, text in answers], [demonstrations[prompt] for prompt in prompts])


def test_rank_reward_favours_the_majority_or_the_demonstration() -> None:
    drawn = ["1 2 3", "1 2 3", "1 2 4", "9 2 3", "5 6 7", ""]
    answers = [(prompt, text) for text in drawn for prompt in ("a", "b")]  # the prompts' answers are mixed
    by_majority = np.array(scores_of(PAPER, answers, {"a": "5 6 7", "b": "5 6 7"})).reshape(6, 2)
    ours = np.array(scores_of(OURS, answers, {"a": "5 6 7", "b": "9 2 3"})).reshape(6, 2)
    np.testing.assert_allclose(by_majority[:, 0], by_majority[:, 1])
    assert by_majority[0, 0] == by_majority[1, 0] == by_majority[:, 0].max()
    assert by_majority[5, 0] == by_majority[:, 0].min(), "an empty answer is among the worst"
    np.testing.assert_allclose(ours.mean(axis=0), 0, atol=1e-7)
    np.testing.assert_allclose(ours.std(axis=0), 1, atol=1e-6)
    assert ours[4, 0] - by_majority[4, 0] > 0.5, "the demonstration lifts the answer that equals it"
    assert ours[3, 1] > ours[2, 1]


# ---- verdicts ------------------------------------------------------------------------------------------------------
def rows_of_scores(task: str, metric: str, scores: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {"task": task, "seed": seed, "method": method, "budget": {"steps": 1}, metric: value, "seconds": 1.0}
        for method, values in scores.items()
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("differences", "least", "word"),
    [
        ([1.0, 1.2, 0.9, 1.1], 0.0, "held"),
        ([-1.0, -1.2, -0.9, -1.1], 0.0, "did not hold"),
        ([1.0, -1.2, 0.9, 1.1], 0.0, "undecided"),
        ([1.0, 1.2, 0.9, 1.1], 3.0, "did not hold"),
        ([4.0, 4.2, 3.9, 4.1], 3.0, "held"),
        ([5.0], 0.0, "undecided"),
        ([0.0, 0.0], 0.0, "no difference at all"),
    ],
)
def test_verdicts(differences: list[float], least: float, word: str) -> None:
    claim = Claim("a beats b", "a", "b", "paper", least=least)
    scores = {"b": [10.0 * i for i in range(4)], "a": [10.0 * i + d for i, d in enumerate(differences)]}
    found: list[Verdict] = verdicts_of(rows_of_scores("wordnet", "meteor", scores), [claim])
    assert [verdict.word for verdict in found] == [word]
    assert found[0].difference.count == len(differences)


def test_ties_are_half_a_win_and_silence_loses() -> None:
    silent = -math.inf
    found = compared(np.array([1.0, 2.0, 3.0, silent]), np.array([1.0, 3.0, 2.0, 0.0]))
    assert found == {"win_rate": 100 * 1.5 / 4, "judged": 4}


def test_the_judge_compares_answers_to_the_same_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.replicate_str.judged as judged

    monkeypatch.setitem(judged.JUDGED, "dialogues", 2)
    monkeypatch.setattr(judged, "scores", lambda file, most: np.array(json.loads(file.read_text())[:most], dtype=float))
    rows = rows_of_scores("dialogues", "meteor", {"full": [1.0, 1.0], "str_ours": [1.0, 1.0]})
    for row, answers in zip(rows, ([1, 1], [1, 1], [2, 0], [2, 2]), strict=True):
        append(tmp_path / "dialogues.jsonl", row)
        answers_file(tmp_path, row).write_text(json.dumps([*answers, 9 if row["method"] == "full" else 0]))
    found = list(verdicts(tmp_path, tmp_path, [0, 1]))
    assert [(key["seed"], key["method"], numbers["win_rate"]) for key, numbers in found] == [
        (0, "str_ours", 50.0),
        (1, "str_ours", 100.0),
    ]
    append(tmp_path / "judged.jsonl", {**found[0][0], **found[0][1]})
    assert [key["seed"] for key, _ in verdicts(tmp_path, tmp_path, [0, 1])] == [1]


def test_report_has_tables_verdicts_and_plots(tmp_path: Path) -> None:
    from bench.replicate_str.report import write_report

    rows = rows_of_scores("dialogues", "meteor", {"full": [3.0, 4.0], "str_noise": [3.5, 4.4], "str_ours": [4.0, 5.0]})
    sweep = [
        {"task": "sweep", "seed": seed, "method": "str_ours", "budget": {"steps": 1}, "reward_steps": steps,
         "kl_coef": kl, "true_reward": 0.5 + 0.1 * seed + kl, "start_reward": 0.5,
         "human_accuracy": 0.6, "seconds": 1.0}
        for seed in (0, 1) for steps in (10, 20) for kl in (0.1, 0.5)
    ]  # fmt: skip
    for row in rows:
        append(tmp_path / "dialogues.jsonl", row)
        if row["method"] != "full":
            win = {"str_noise": 51.0, "str_ours": 56.0}[row["method"]] + 0.1 * row["seed"]
            append(tmp_path / "judged.jsonl", {**row, "win_rate": win})
    append(tmp_path / "dialogues.jsonl", {**rows[0], "seed": 100, "meteor": 1e9})  # a tuning seed
    for row in sweep:
        append(tmp_path / "sweep.jsonl", row)
    text = write_report(tmp_path, tmp_path / "docs").read_text()
    assert "| full fine-tuning | 50.0 ± 0.0 | 3.5 ± 6.4 |" in text
    assert "**held** 5.00" in text
    assert "| 10 | 0.150 ± 0.635 | 0.550 ± 0.635 | 0.600 |" in text
    assert "1000000" not in text
    for name in ("str_methods", "str_sweep"):
        assert f"(images/{name}.png)" in text
        assert (tmp_path / "docs" / "images" / f"{name}.png").stat().st_size > 5000


# ---- a run ---------------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("quick")
def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    run_task("sorting", 100, ["full"], TINY, tmp_path, tmp_path)
    run_task("sorting", 100, ["full", "str_ours", "str_rloo"], TINY, tmp_path, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "sorting.jsonl").read_text().splitlines()]
    assert [row["method"] for row in rows] == ["full", "str_ours", "str_rloo"]
    assert all(0 <= row["true_reward"] <= 1 for row in rows)
    assert {"pair_accuracy", "human_accuracy", "ranked_share"} <= rows[1].keys()
    assert "contradiction" not in rows[1], "digits have no negation"
    assert len(answers_file(tmp_path, rows[2]).read_text().splitlines()) == 6
    before = (tmp_path / "sorting.jsonl").read_bytes()
    run_task("sorting", 100, ["full", "str_ours", "str_rloo"], TINY, tmp_path, tmp_path)
    assert (tmp_path / "sorting.jsonl").read_bytes() == before


def test_every_method_of_the_table_is_there() -> None:
    wanted = {"full", "lora", "adapter", "bitfit", "str", "str_noise", "str_no_isodata", "str_ours", "str_rloo"}
    assert wanted < METHODS.keys()


@pytest.mark.usefixtures("quick")
def test_sweep_shares_a_reward_model_between_kl_coefficients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.replicate_str.run as runs

    made = []
    monkeypatch.setattr(runs, "SWEEP_REWARD_STEPS", (1,))
    monkeypatch.setattr(runs, "SWEEP_KL", (0.1, 0.5))
    learn = runs.reward_of
    monkeypatch.setattr(runs, "reward_of", lambda *args, **kw: made.append(kw["steps"]) or learn(*args, **kw))
    run_sweep(100, TINY, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "sweep.jsonl").read_text().splitlines()]
    assert [(row["reward_steps"], row["kl_coef"]) for row in rows] == [(1, 0.1), (1, 0.5)]
    assert made == [1]
    assert len({row["start_reward"] for row in rows}) == 1
