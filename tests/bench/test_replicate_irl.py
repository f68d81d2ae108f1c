"""The experiments on RFT and IRFT at sizes of a second: budgets are honest, rows resume, verdicts follow the rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from bench.replicate.intervals import Interval
from bench.replicate.rows import append, rows_of
from bench.replicate_irl import judged, sorting
from bench.replicate_irl.__main__ import main
from bench.replicate_irl.claims import difference_of, robust_verdict, robustness, verdict
from bench.replicate_irl.experiments import EXPERIMENTS, with_wrong_replies
from bench.replicate_irl.likelihood import Answers, GapCurve, likelihoods
from bench.replicate_irl.methods import METHODS, given_pairs, rft_settings
from bench.replicate_irl.report import gather, write_report
from bench.replicate_irl.run import answers_file
from bench.replicate_irl.task import Budget, Task

SMALL = "demonstrations=48,held_out=12,batch=8,warm_up_steps=2,steps=4,reward_epochs=1"


@pytest.fixture
def task(tmp_path: Path) -> Task:
    condition = EXPERIMENTS["sorting"][0]
    return condition.build(3, replace(Budget(), demonstrations=20, held_out=6), tmp_path)


# ---- budgets --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("demonstrations", "samples"), [(1500, 1), (1500, 4), (120, 2)])
def test_rft_takes_as_many_policy_steps_as_the_others(task: Task, demonstrations: int, samples: int) -> None:
    budget = Budget(demonstrations=demonstrations, rft_samples=samples, steps=120)
    given = replace(task, rows=task.rows[:1] * demonstrations, budget=budget)
    weighted, ppo = (rft_settings(given, "rft", step) for step in ("weighted_sft", "ppo"))
    rows = weighted["sample_prompts"] * (1 + samples) * weighted["policy_epochs"]
    assert weighted["rounds"] * rows / budget.batch == pytest.approx(120, rel=0.03)
    batches = ppo["policy_episodes"] / ppo["policy_batch_size"]
    assert ppo["rounds"] * batches * ppo["policy_mini_batches"] * ppo["policy_epochs"] == 120
    assert weighted["rounds"] * weighted["sample_prompts"] <= demonstrations


def test_a_row_is_decided_by_the_settings_of_its_own_method() -> None:
    first, second = Budget(), Budget(rft_beta=9.0, beta=9.0, kept_sft_coef=9.0)
    assert first.of("sft_steps") == second.of("sft_steps")
    assert first.of("start") == replace(first, steps=7).of("start") != replace(first, warm_up_steps=7).of("start")
    for name in ("spin", "irft_2", "irft_2_sft", "dpo", "rft", "rft_ppo"):
        assert first.of(name) != second.of(name)
    assert first.of("spin") == replace(first, rft_beta=9.0).of("spin")
    assert first.of("rft") == replace(first, beta=9.0).of("rft")


def test_pairs_for_dpo_are_the_drawn_ones_without_those_that_teach_nothing(tmp_path: Path) -> None:
    rows = [{"prompt": "b a =", "completion": " a b"}, {"prompt": "d c =", "completion": "c d"}]
    drawn = tmp_path / "round_00.jsonl"
    lines: list[dict[str, Any]] = [{"head": 1}, {"prompt_row": 1, "completion": " d c"}]
    lines.append({"prompt_row": 0, "completion": "a b"})
    drawn.write_text("\n".join(map(json.dumps, lines)))
    assert given_pairs(drawn, rows) == [{"prompt": "d c =", "chosen": "c d", "rejected": "d c"}]


# ---- what is measured -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answer", "reward"), [("1 2 3 4 5 6", 1.0), ("2 1 3 4 5 6", 4 / 6), ("1 2 3", 0.5), ("1 2 3 4 5 6 7 7", 0.75)]
)
def test_true_reward_is_the_share_of_right_places(answer: str, reward: float) -> None:
    assert sorting.true_reward("6 5 4 3 2 1 =", answer) == pytest.approx(reward)


def test_exactly_the_asked_share_is_bad() -> None:
    data = sorting.demonstrations(0, bad=0.4, train=50, held_out=10)
    assert sum(sorting.true_reward(row["prompt"], row["completion"]) < 1 for row in data.train) == 20
    assert all(sorting.true_reward(row["prompt"], row["rejected"]) < 1 for row in data.held_out)
    assert not {row["prompt"] for row in data.train} & {row["prompt"] for row in data.held_out}


def test_logprobs_are_those_of_the_answer_and_its_end(task: Task) -> None:
    row = task.held_out[0]
    tokens = task.tokenizer
    prompt, answer = (tokens(text)["input_ids"] for text in (row["prompt"], row["chosen"]))
    whole = torch.tensor([[*prompt, *answer, tokens.eos_token_id]])
    with torch.no_grad():
        logits = task.policy(whole).logits.log_softmax(-1)
    places = range(len(prompt), whole.shape[1])
    expected = sum(float(logits[0, i - 1, whole[0, i]]) for i in places)
    found = Answers(task, task.held_out, "chosen")
    assert float(found.logprobs(task.policy)[0]) == pytest.approx(expected, abs=1e-4)
    assert found.tokens == len(task.held_out) * (sorting.DIGITS + 1)
    numbers = likelihoods(task.policy, task)
    assert numbers["nll"] == pytest.approx(-numbers["chosen"] / (sorting.DIGITS + 1))


def test_the_curve_begins_before_the_first_step(task: Task) -> None:
    curve = GapCurve(task, every=2)
    METHODS["sft_steps"](replace(task, budget=replace(task.budget, steps=4, batch=8), callbacks=(curve,)))
    assert [point[0] for point in curve.points] == [0, 2, 4]
    assert curve.points[0][1] == pytest.approx(likelihoods(task.policy, task)["chosen"], abs=1e-3)
    assert curve.points[2][1] > curve.points[0][1]


def test_wrong_replies_are_those_to_the_next_prompt() -> None:
    rows = with_wrong_replies([{"prompt": str(i), "references": [f"r{i}"]} for i in range(3)])
    assert [(row["chosen"], row["rejected"]) for row in rows] == [("r0", "r1"), ("r1", "r2"), ("r2", "r0")]


# ---- verdicts -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("interval", "word"),
    [
        ((0.2, 0.1, 5), "held"),
        ((-0.2, 0.1, 5), "did not hold"),
        ((0.2, 0.3, 5), "undecided"),
        ((0.2, 0.0, 1), "undecided"),
    ],
)
def test_a_verdict_needs_an_interval_that_leaves_zero_out(interval: tuple[float, float, int], word: str) -> None:
    assert verdict(Interval(*interval)) == word


def test_robustness_is_the_difference_of_the_gains() -> None:
    rewards = {(0.0, "sft_steps"): 0.9, (0.0, "spin"): 0.8, (0.4, "sft_steps"): 0.5, (0.4, "spin"): 0.6}
    rows = [
        {"task": "sorting", "regime": "early", "bad": bad, "method": method, "seed": seed, "reward": reward + seed}
        for (bad, method), reward in rewards.items()
        for seed in (0, 1, 2)
    ]
    rows.append({**rows[-1], "seed": 9})  # nothing to compare it with
    found = robustness(rows, "early", "spin", 0.4)
    assert found is not None
    assert (found.mean, found.count) == (pytest.approx(0.2), 3)
    assert robustness(rows, "late", "spin", 0.4) is None
    assert difference_of(rows, "reward", "spin", "dpo") is None


@pytest.mark.parametrize(
    ("bad_spin", "word"), [(0.6, "held"), (0.45, "did not hold"), (0.501, "undecided")], ids=["beats", "stays", "even"]
)
def test_losing_less_to_a_weaker_sft_is_no_robustness(bad_spin: float, word: str) -> None:
    rewards = {(0.0, "sft_steps"): 0.9, (0.0, "spin"): 0.8, (0.4, "sft_steps"): 0.5, (0.4, "spin"): bad_spin}
    rows = [
        {"task": "sorting", "regime": "early", "bad": bad, "method": method, "seed": seed,
         "reward": reward + 0.01 * seed * (method == "spin")}
        for (bad, method), reward in rewards.items()
        for seed in (-1, 0, 1)
    ]  # fmt: skip
    more = robustness(rows, "early", "spin", 0.4)
    assert more is not None
    assert verdict(more) == "held"
    assert robust_verdict(rows, "early", "spin", 0.4) == word


def test_the_judge_compares_with_the_answers_of_sft_and_an_empty_answer_loses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judged, "judge", lambda: LongestWins())
    texts = {"sft_steps": ["aa", "aa", "aa", "aa"], "spin": ["aaa", "aa", " ", "a"]}
    for method, answers in texts.items():
        key = {"task": "dialogues", "seed": 0, "budget": Budget().of(method), "method": method}
        append(tmp_path / "dialogues.jsonl", key)
        lines = [json.dumps({"prompt": "p", "answer": answer}) for answer in answers]
        answers_file(tmp_path, key).write_text("\n".join(lines))
    append(tmp_path / "dialogues.jsonl", {**key, "seed": 1})  # its answers are not here
    for _ in range(2):  # the second time nothing is missing
        judged.judge_all(tmp_path, tmp_path, [0, 1], most=4)
    (row,) = rows_of(tmp_path / "judged.jsonl")
    assert (row["method"], row["win_rate"], row["judged"]) == ("spin", 100 * 1.5 / 4, 4)
    assert row["accuracy"] == {"other": 0.7}


class LongestWins:
    accuracy: ClassVar = {"other": 0.7}

    def __call__(self, prompts: list[str], answers: list[str]) -> list[int]:
        return [len(answer) for answer in answers]


# ---- from the command to the report ---------------------------------------------------------------------------------
def test_run_resumes_and_the_report_has_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    command = [
        "run", "--tasks", "sorting", "--only", "regime=early,bad=0.0", "--set", SMALL, "--results", str(results),
        "--work", str(tmp_path / "work"),
    ]  # fmt: skip
    first, second = ["--seeds", "0", "--methods", "sft_steps,irft_2,rft"], ["--seeds", "0-1", "--methods", "sft_steps"]
    main(command + first)
    main(command + second)
    rows = list(rows_of(results / "sorting.jsonl"))
    found = [(row["seed"], row["method"]) for row in rows]
    assert found == [(0, "start"), (0, "sft_steps"), (0, "irft_2"), (0, "rft"), (1, "start"), (1, "sft_steps")]
    assert rows[0]["curve"] == []
    assert rows[1]["curve"][-1][0] == 4
    capsys.readouterr()
    main(command + first)
    assert capsys.readouterr().out == ""
    append(results / "sorting.jsonl", {**rows[1], "seed": 100, "reward": 77.0})
    append(results / "sorting.jsonl", {**rows[1], "budget": {**rows[1]["budget"], "steps": 5}, "reward": 0.125})
    assert [row["reward"] for row in gather(results) if row["method"] == "sft_steps"] == [0.125]
    text = write_report(results, docs).read_text()
    assert "| SFT, equal steps | 1 | 0.125" in text
    assert "| IRFT T = 2 | 1 |" in text
    assert "77.0" not in text
    assert (docs / "images" / "irl_gap.png").exists()
    with pytest.raises(SystemExit):
        main(["run", "--methods", "spinn", "--results", str(results)])
