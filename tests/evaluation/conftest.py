"""Answers of two models and a whole run directory, made by a seed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rlsft.artifacts import write_json, write_jsonl, write_text
from rlsft.evaluation import Generation, compare, plot_run, write_generations

WORDS = tuple("i like to play chess with my old friend on sunday and we talk about food or music at work".split())  # noqa: SIM905


def make_answers(model: str, *, keep: float, reward: float = 0.0, count: int = 40, seed: int = 0) -> list[Generation]:
    """Answers that keep a share of the reference's words; `reward` is their mean reward."""
    noise = random.Random(f"{model}{seed}")
    rows = []
    for i in range(count):
        rng = random.Random(i)
        reference = [rng.choice(WORDS) for _ in range(12)]
        answer = [word if noise.random() < keep else noise.choice(WORDS) for word in reference]
        rows.append(
            Generation(
                prompt=f"prompt {i}",
                completion=" ".join(answer),
                model=model,
                references=(" ".join(reference) + ".",),
                reward=noise.gauss(reward, 1.0),
                kl=0.0 if model == "SFT" else abs(noise.gauss(1.0, 0.3)),
                length=noise.randint(10, 20),
                ended=noise.random() < 0.9,
            )
        )
    return rows


@pytest.fixture
def answers() -> Callable[..., list[Generation]]:
    return make_answers


@pytest.fixture
def run_dir(tmp_path: Path, _made_run: Path) -> Path:
    """What a finished STR run leaves, in small; one answer tries to be HTML. Without plots."""
    return Path(shutil.copytree(_made_run, tmp_path / "my run"))


@pytest.fixture
def plotted_run(run_dir: Path, _made_plots: Path) -> Path:
    """`run_dir` with its plots, which take seconds to draw."""
    shutil.copytree(_made_plots, run_dir / "plots")
    return run_dir


@pytest.fixture(scope="session")
def _made_plots(_made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(shutil.copytree(_made_run, tmp_path_factory.mktemp("plots") / "my run"))
    plot_run(run)
    return run / "plots"


@pytest.fixture(scope="session")
def _made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "my run"
    before, after = make_answers("SFT", keep=0.8), make_answers("STR", keep=0.4, reward=1.5)
    after[0] = Generation(
        prompt=before[0].prompt,
        completion="<script>alert('x')</script> & $5 {{ 7 * 7 }}",
        model="STR",
        references=before[0].references,
        reward=0.123,
        kl=1.0,
        length=9,
        ended=True,
    )
    write_generations(run / "evaluation" / "generations.jsonl", [*before, *after])
    table = compare(before, after, wordnet=False, kpi=lambda prompt, answer, reference: answer.count("i"))
    write_json(run / "evaluation" / "table.json", table.to_json())
    write_json(
        run / "evaluation" / "agreement.json",
        {
            "description": "Proxy: another reply of a person, ranked.",
            "rows": [{"label": "top-1", "mean": 0.46, "low": 0.36, "high": 0.561, "n": 100, "chance": 0.0625}],
        },
    )
    write_jsonl(run / "metrics.jsonl", metrics_rows())
    write_ranked(run)
    write_json(
        run / "run.json",
        {
            "method": "STR",
            "model": "smollm2",
            "seed": 7,
            "argv": ["rlsft", "str", "--seed", "7"],
            "versions": {"rlsft": "0.0.1", "torch": "2.13.0"},
            "stage_seconds": {"sft": 1800.0, "ppo": 5400.0},
            "num_train_examples": 4321,
        },
    )
    write_json(run / "sft" / "done.json", {"num_tokens": 36000})
    write_text(run / "rlsft_config.yaml", "language: en\nsft_learning_rate: 3.0e-05\ndataset_name: chitchat\n")
    return run


def metrics_rows() -> list[dict]:
    rows: list[dict] = [{"stage": "sft", "step": s, "loss": 3.0 - s / 20} for s in range(20)]
    rows += [{"stage": "sft", "step": s, "eval_loss": 3.1 - s / 25} for s in (0, 19)]
    rows += [{"stage": "reward", "step": s, "loss": 0.7 - s / 99, "accuracy": 0.5 + s / 99} for s in range(20)]
    rows += [{"stage": "reward", "step": 19, "eval_loss": 0.6, "eval_accuracy": 0.6}]
    rows += [
        {
            "stage": "ppo",
            "step": s,
            "objective/scores": s / 10,
            "objective/rlhf_reward": None if s == 3 else s / 11,
            "objective/kl": s / 8,
            "objective/kl_coef": 0.05,
            "loss/policy_avg": -0.01,
            "loss/value_avg": 1 / (s + 1),
            "val/ratio": 1.0,
        }
        for s in range(20)
    ]
    return rows


def write_ranked(run: Path, *, language: str = "en") -> None:
    texts = {
        "en": ["I love chess, do you?", "i like chess $x_1$", "Not really <b>.", "ok"],
        "ja": ["今日はとても良い天気ですね😀", "そうですね。", "いいえ、雨です。", "散歩が好きです。"],
    }[language]
    rows = [
        {
            "prompt": "A: hi\nB: do you like chess?",
            "completion": text,
            "rank": i + 1,
            "score": 0.4 - 0.1 * i,
            "cluster": (0, 0, 1, -1)[i],
            "representative": i in (0, 2),
            "prompt_index": 0,
            "response_index": i,
        }
        for i, text in enumerate(texts)
    ]
    write_jsonl(run / "ranked" / "ranked.jsonl", rows)
    explanations = [{"text": f"Because of {i}.", "prompt_index": i // 4, "response_index": i % 4} for i in range(8)]
    write_jsonl(run / "ranked" / "explanations.jsonl", explanations)
    pairs = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "noise": "word" if i % 4 == 0 else None} for i in range(40)
    ]
    write_jsonl(run / "ranked" / "pairs.jsonl", pairs)
