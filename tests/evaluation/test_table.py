"""Comparisons: pairing, values, verdicts, honest sentences, drift, and their three renderings."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rlsft.artifacts import jsonable, write_text
from rlsft.errors import DataError
from rlsft.evaluation import Comparison, Generation, compare, read_generations, write_generations
from rlsft.metrics import bootstrap_mean, paired_bootstrap, sentence_bleu

Answers = Callable[..., list[Generation]]


def quick(before: list[Generation], after: list[Generation], **options) -> Comparison:
    return compare(before, after, **({"wordnet": False, "num_resamples": 300} | options))


def test_rows_are_means_with_paired_intervals(answers: Answers) -> None:
    before, after = answers("SFT", keep=0.8), answers("STR", keep=0.5)
    table = quick(before, after)
    values = [[100 * sentence_bleu(row.references, row.completion) for row in side] for side in (before, after)]
    row = table.row("bleu")
    assert row.before == bootstrap_mean(values[0], num_resamples=300)
    assert row.after == bootstrap_mean(values[1], num_resamples=300)
    assert row.difference == paired_bootstrap(*values, num_resamples=300)
    assert row.label == "BLEU-4 (nltk, method3)"
    assert table.row("meteor").label == "METEOR (nltk, exact+stem)"
    assert table.row("ended").before.mean == pytest.approx(100 * sum(bool(r.ended) for r in before) / 40)
    assert table.row("length").difference.mean == pytest.approx(
        sum(a.length - b.length for a, b in zip(after, before, strict=True)) / 40  # type: ignore[operator]
    )


def test_order_of_the_rows_does_not_matter(answers: Answers) -> None:
    before, after = answers("SFT", keep=0.8), answers("STR", keep=0.5)
    assert quick(before, after[::-1]).to_json() == quick(before, after).to_json()


def test_worse_is_said_first_and_plainly(answers: Answers) -> None:
    table = quick(answers("SFT", keep=0.9), answers("STR", keep=0.3))
    assert table.sentence.startswith("STR made these worse: BLEU-4 -")
    assert "METEOR" in table.sentence
    assert table.row("gleu").verdict == "worse"
    assert "better" not in table.sentence


def test_better_is_said_with_its_interval(answers: Answers) -> None:
    table = quick(answers("SFT", keep=0.3), answers("STR", keep=0.9))
    assert table.sentence.startswith("STR made these better: BLEU-4 +")
    assert "No metric got clearly worse." in table.sentence
    assert table.row("rouge_l").difference.low > 0


def test_no_change_is_no_verdict(answers: Answers) -> None:
    before = answers("SFT", keep=0.5)
    table = quick(before, [replace(row, model="STR") for row in before])
    assert {row.verdict for row in table.rows} == {"no clear change"}
    assert table.sentence == "STR changed no metric clearly."


def test_few_prompts_get_no_verdict(answers: Answers) -> None:
    table = quick(answers("SFT", keep=0.9, count=8), answers("STR", keep=0.1, count=8))
    assert {row.verdict for row in table.rows} == {"too few to say"}
    assert table.sentence.startswith("Too few to say whether STR is better or worse than SFT: 8 prompts")


def test_prompts_of_few_conversations_get_no_verdict(answers: Answers) -> None:
    sides = [
        [replace(row, group=f"talk {i % 5}") for i, row in enumerate(answers(model, keep=keep))]
        for model, keep in (("SFT", 0.9), ("STR", 0.1))
    ]
    table = quick(*sides)
    assert "5 independent groups of prompts" in table.sentence
    assert table.row("bleu").difference.units == 5
    assert "The 40 prompts come from 5 groups, which are resampled whole." in table.notes


def test_length_and_kl_have_no_good_direction(answers: Answers) -> None:
    before = answers("SFT", keep=0.5)
    table = quick(before, [replace(row, model="STR", length=row.length + 5, kl=1.0) for row in before])  # type: ignore[operator]
    assert table.row("length").verdict == "higher"
    assert table.row("kl").verdict == "higher"
    assert "Higher, which is neither good nor bad in itself: Length +5.0" in table.sentence


def test_several_answers_to_a_prompt_are_averaged_first(answers: Answers) -> None:
    first, second = answers("SFT", keep=0.8), answers("SFT", keep=0.8, seed=1)
    before = [*first, *(replace(row, sample=1) for row in second)]
    after = [replace(row, model="STR") for row in before]
    row = quick(before, after).row("reward")
    assert row.before.n == 40
    expected = sum(a.reward + b.reward for a, b in zip(first, second, strict=True)) / 80  # type: ignore[operator]
    assert row.before.mean == pytest.approx(expected)


def test_distinct_is_of_the_whole_set(answers: Answers) -> None:
    before = answers("SFT", keep=0.5)
    after = [replace(row, model="STR", completion="i do not know that") for row in before]
    table = quick(before, after)
    assert table.row("distinct_1").after.mean == pytest.approx(5 / 200)
    assert table.row("distinct_2").verdict == "worse"


def test_repeating_oneself_is_worse(answers: Answers) -> None:
    before = answers("SFT", keep=0.5)
    table = quick(before, [replace(row, model="STR", completion="so do i and " * 5) for row in before])
    assert table.row("repetition").verdict == "worse"
    assert table.row("repetition").after.mean == pytest.approx(100 * (1 - 4 / 17))  # 17 four-grams, 4 distinct


def test_what_was_not_measured_is_said(answers: Answers) -> None:
    strip = [[replace(row, kl=None, reward=None) for row in answers(model, keep=0.5)] for model in ("SFT", "STR")]
    table = quick(*strip)
    assert {"kl", "reward", "kpi"}.isdisjoint(row.key for row in table.rows)
    assert table.notes[-1] == "Not measured: Reward (learned), KL to the reference, KPI."
    with pytest.raises(KeyError, match="no metric 'kl'; there are bleu"):
        table.row("kl")


def test_one_sided_values_are_shown_but_not_compared(answers: Answers) -> None:
    before = [replace(row, kl=None) for row in answers("SFT", keep=0.5)]
    row = quick(before, answers("STR", keep=0.5)).row("kl")
    assert row.verdict == "not compared"
    assert row.cells()[1] == "–"
    assert row.cells()[4] == "40"


def test_prompts_without_references_have_no_overlap(answers: Answers) -> None:
    strip = [[replace(row, references=()) for row in answers(model, keep=0.5)] for model in ("SFT", "STR")]
    table = quick(*strip)
    assert table.rows[0].key == "distinct_1"
    assert not table.corpus


def test_reward_against_kpi_is_a_drift(answers: Answers) -> None:
    before = answers("SFT", keep=0.8)
    after = [
        replace(row, model="STR", reward=row.reward + 2.0, completion=row.completion + " buy now" * 3)  # type: ignore[operator]
        for row in before
    ]
    table = quick(before, after, kpi=lambda prompt, answer, reference: -float(answer.count("buy")))
    assert table.row("kpi").verdict == "worse"
    assert any("while the KPI fell" in text and "the reward drifts from the KPI." in text for text in table.warnings)
    assert any("The policy may have learned to please the reward model" in text for text in table.warnings)


def test_kpi_correlation_with_the_reward(answers: Answers) -> None:
    before, after = answers("SFT", keep=0.8), answers("STR", keep=0.8)
    reward_of = {row.completion: row.reward for row in before + after}
    table = quick(before, after, kpi=lambda prompt, answer, reference: -reward_of[answer])  # type: ignore[operator]
    assert table.kpi_reward["after"].mean == pytest.approx(-1.0)
    assert any("the reward works against the KPI" in text for text in table.warnings)
    agreeing = quick(before, after, kpi=lambda prompt, answer, reference: reward_of[answer])  # type: ignore[arg-type,return-value]
    assert agreeing.kpi_reward["before"].mean == pytest.approx(1.0)
    assert not agreeing.warnings


def test_japanese_pairs_do_not_score_zero() -> None:
    pairs = [("今日はとても良い天気ですね。", "今日はとてもいい天気ですね。")] * 3
    sides = [
        [
            Generation(prompt=str(i), completion=answer, references=(reference,), model=model)
            for i, (reference, answer) in enumerate(pairs)
        ]
        for model in ("SFT", "STR")
    ]
    table = quick(*sides, language="ja")
    for key in ("bleu", "bleu_unsmoothed", "gleu", "meteor", "rouge_l", "chrf"):
        assert table.row(key).before.mean > 50, key
    assert table.row("meteor").label == "METEOR (nltk, exact)"
    assert "tok:char" in table.corpus["Corpus BLEU"]["signature"]


def test_json_round_trip_and_renderings(answers: Answers) -> None:
    table = quick(answers("SFT", keep=0.8), answers("A|B", keep=0.5), kpi=lambda p, a, r: len(a))
    stored = json.loads(json.dumps(jsonable(table.to_json()), allow_nan=False))
    assert Comparison.from_json(stored).to_markdown() == table.to_markdown()
    lines = table.to_markdown().splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == len(table.rows) + 1
    assert {line.replace("\\|", "").count("|") for line in rows} == {7}
    assert table.versions["nltk"]


def test_rich_table_keeps_square_brackets(answers: Answers) -> None:
    from rich.console import Console

    table = quick(answers("SFT", keep=0.9), answers("STR", keep=0.3))
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table.to_rich())
    text = console.export_text()
    assert table.row("bleu").cells()[1] in text
    assert "[nats]" in text
    assert "worse" in text


def test_two_runs_are_equal(answers: Answers) -> None:
    before, after = answers("SFT", keep=0.8), answers("STR", keep=0.5)
    assert quick(before, after).to_json() == quick(before, after).to_json()
    assert quick(before, after, seed=1).to_json() != quick(before, after).to_json()


def test_unpaired_sets_are_refused(answers: Answers) -> None:
    before, after = answers("SFT", keep=0.8), answers("STR", keep=0.5)
    with pytest.raises(DataError, match="1 prompts of before are missing in after, such as 'prompt 39'"):
        quick(before, after[:-1])
    with pytest.raises(DataError, match="1 prompts of after are missing in before"):
        quick(before[1:], after)
    with pytest.raises(DataError, match="as many answers a prompt: 1 and 2 for 'prompt 0'"):
        quick(before, [*after, after[0]])
    with pytest.raises(DataError, match="before must hold the answers of one model, got SFT, STR"):
        quick(before + after, after)
    with pytest.raises(DataError, match="after must hold the answers of one model, got no answers"):
        quick(before, [])


def test_records_survive_the_disk(answers: Answers, tmp_path: Path) -> None:
    rows = [*answers("SFT", keep=0.5, count=3), *answers("STR", keep=0.5, count=3)]
    path = write_generations(tmp_path / "generations.jsonl", rows)
    assert read_generations(path) == rows
    assert read_generations(path, model="STR") == rows[3:]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "p", "model": "SFT"}', "record 1: 'completion' must be a string, got NoneType"),
        (
            '{"prompt": "p", "completion": "c", "model": "m", "references": [1]}',
            "'references' must be a list of strings",
        ),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write_text(tmp_path / "generations.jsonl", line + "\n")
    with pytest.raises(DataError, match=message):
        read_generations(path)


def test_a_broken_table_is_named() -> None:
    with pytest.raises(DataError, match="not a comparison table: 'rows'"):
        Comparison.from_json({"before": "SFT"})
