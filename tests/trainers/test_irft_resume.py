"""Invariant 4 for IRFT: a run that is stopped anywhere and resumed equals one that never stopped, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rlsft.artifacts import read_jsonl
from rlsft.errors import RunError
from tests.support.irft import irft_trainer
from tests.support.ppo import LORA
from tests.support.training import demonstrations, equal_parameters

SAME = (
    "loss", "grad_norm", "learning_rate", "accuracy", "margin", "logps/real", "logps/generated", "kl/generator",
    "round", "num_tokens", "epoch", "completions/mean_length", "eval_loss", "eval_accuracy", "eval_margin",
)  # fmt: skip


@pytest.mark.parametrize(
    ("cut", "settings"),
    [
        (3, {"lr_scheduler_type": "linear", "warmup_steps": 2}),  # in the middle of the first round
        (4, {"lr_scheduler_type": "linear"}),  # between two rounds
        (3, {"peft_config": LORA, "replay_rounds": 2, "refresh": "shards", "rounds": 4}),  # round 2 needs 1 and 0
        # the window that ends the first round, after step 4, begins before the cut
        (
            3,
            {"refresh": "adaptive", "adaptive_accuracy": 0.9, "adaptive_window": 3, "learning_rate": 5e-3, "rounds": 3},
        ),
        (3, {"refresh": "per_step", "refresh_probability": 0.5}),
        (3, {"reference": "initial", "samples_per_prompt": 2, "gradient_accumulation_steps": 2}),
    ],
)
def test_stop_and_resume_equals_never_stopped(tmp_path: Path, cut: int, settings: dict[str, Any]) -> None:
    """C09: weights, optimizer, answers, held-out answers, logged rows."""
    saving = {"save_strategy": "steps", "save_steps": cut, "eval_strategy": "steps", "eval_steps": 3, **settings}
    whole = irft_trainer(tmp_path / "whole", eval_dataset=demonstrations(3), **saving)
    whole.train()
    resumed = irft_trainer(tmp_path / "resumed", eval_dataset=demonstrations(3), **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{cut}"))
    assert whole.state.global_step > cut
    assert equal_parameters(whole.model, resumed.model)
    left, right = whole.optimizer.state_dict()["state"], resumed.optimizer.state_dict()["state"]  # type: ignore[union-attr]
    for key, moments in left.items():
        assert torch.equal(moments["exp_avg_sq"], right[key]["exp_avg_sq"])
    rows = [
        [{k: row.get(k) for k in SAME} for row in trainer.state.log_history if row["step"] > cut and "perf" not in row]
        for trainer in (whole, resumed)
    ]
    assert rows[0] == rows[1]
    assert whole.rounds is not None
    assert resumed.rounds is not None
    answers = [[pair.generated for pair in trainer.rounds.state.pairs] for trainer in (whole, resumed)]
    assert answers[0] == answers[1]


def test_answers_of_a_killed_run_are_used_again(tmp_path: Path) -> None:
    """Whole chunks of a round's file are kept when weights and settings are the same, and dropped otherwise."""
    settings: dict[str, Any] = {"rounds": 1, "generation_batch_size": 1, "rows": demonstrations(10)}
    irft_trainer(tmp_path / "whole", **settings).train()
    file = tmp_path / "whole" / "negatives" / "round_00.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    killed = tmp_path / "killed" / "negatives" / "round_00.jsonl"
    killed.parent.mkdir(parents=True)
    killed.write_text("".join(lines[:8]) + lines[8][:20])  # 7 answers and a line that was cut off
    trainer = irft_trainer(tmp_path / "killed", **settings)
    asked: list[int] = []
    generate = trainer.maker.engine.generate

    def counted(prompt_ids: Any, *args: Any) -> Any:
        asked.append(len(prompt_ids))
        return generate(prompt_ids, *args)

    trainer.maker.engine.generate = counted  # type: ignore[method-assign]
    trainer.train()
    assert asked == [4, 2]  # the chunks are of 4: the first one was there
    assert killed.read_text() == file.read_text()
    whole = irft_trainer(tmp_path / "killed", **settings)
    whole.maker.engine.generate = counted  # type: ignore[method-assign]
    whole.train()
    assert asked == [4, 2]  # a file that is whole is not drawn again
    other = irft_trainer(tmp_path / "killed", seed=7, **settings)
    other.train()
    assert len(read_jsonl(killed)) == 11
    assert read_jsonl(killed)[0] != read_jsonl(file)[0]


def test_a_resumed_run_writes_each_answer_once(tmp_path: Path) -> None:
    saving = {"refresh": "per_step", "save_strategy": "steps", "save_steps": 2, "rounds": 1}
    irft_trainer(tmp_path, **saving).train()
    file = tmp_path / "negatives" / "round_00.jsonl"
    before = file.read_text()
    resumed = irft_trainer(tmp_path, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert file.read_text() == before


def test_what_a_checkpoint_lacks_is_explained(tmp_path: Path) -> None:
    trainer = irft_trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=2)
    trainer.train()
    folder = tmp_path / "checkpoint-2"
    state = json.loads((folder / "irft_state.json").read_text())
    assert (state["number"], state["first_step"], state["own"]) == (0, 0, 6)
    with pytest.raises(RunError, match=r"made with a train_dataset of 6 rows, and this one has 4"):
        irft_trainer(tmp_path, rows=demonstrations(4)).train(resume_from_checkpoint=str(folder))
    (folder / "irft_pairs.jsonl").unlink()
    with pytest.raises(RunError, match=r"no irft_pairs.jsonl: it is no IRFT checkpoint"):
        irft_trainer(tmp_path).train(resume_from_checkpoint=str(folder))
