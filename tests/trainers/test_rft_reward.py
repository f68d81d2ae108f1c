"""The reward step's losses: linear and bounded, from the divergence on, weighted; each against a loop by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from rlsft.data import PairCollator, encode_pair
from rlsft.errors import ConfigError, DataError, ModelError
from rlsft.models import evaluation_mode
from rlsft.objectives import divergence_losses, pair_losses
from rlsft.rewards import RewardModel, score_texts, token_scores
from rlsft.trainers.rft.pairs import demonstration_pairs, encode_pairs, joint_rows
from tests.support.models import tiny_tokenizer
from tests.support.rewarding import planted_pairs, reward_settings, reward_trainer, tiny_classifier
from tests.support.training import logged

OPTIONS: dict[str, Any] = {"max_length": 128, "system_prompt": None, "truncate_prompt": False}
ROWS = [
    {"prompt": "What?", "chosen": "I like rice a lot.", "rejected": "I like rice and football with children."},
    {"prompt": "And then, at the weekend?", "chosen": "Pizza.", "rejected": "Rain."},
    {"prompt": "Why?", "chosen": "We went to the park and played.", "rejected": "We went to the park and"},
]


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def by_hand(model: RewardModel, row: dict[str, str], kind: str = "logistic") -> float:
    """The divergence loss of one pair, one token at a time, from unpadded sequences."""
    encoded = encode_pair(row, tiny_tokenizer(), **OPTIONS)
    sides = []
    for side in ("chosen", "rejected"):
        ids = torch.tensor([encoded[f"{side}_input_ids"]])
        with torch.no_grad(), evaluation_mode(model):
            scores = token_scores(model.backbone, ids, torch.ones_like(ids))[0].tolist()
        begin = encoded[f"{side}_completion_mask"].index(True)
        sides.append((ids[0].tolist()[begin:], scores[begin:]))
    (chosen_ids, chosen), (rejected_ids, rejected) = sides
    first = 0
    while first < min(len(chosen), len(rejected)) and chosen_ids[first] == rejected_ids[first]:
        first += 1
    end = max(len(chosen), len(rejected))
    losses = []
    for t in range(first, end):
        difference = chosen[min(t, len(chosen) - 1)] - rejected[min(t, len(rejected) - 1)]
        losses.append(-log_sigmoid(difference) if kind == "logistic" else -difference)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("kind", ["logistic", "linear"])
def test_divergence_loss_is_the_mean_over_the_span_whatever_the_padding(
    tmp_path: Path, padding_side: str, kind: str
) -> None:
    changes = {"reward_bound": 3.0} if kind == "linear" else {}
    trainer = reward_trainer(
        tiny_classifier(),
        tmp_path,
        ROWS,
        reward_span="divergence",
        pair_loss=kind,
        padding_side=padding_side,
        **changes,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    with torch.no_grad():
        losses, _, _ = trainer.pairs_of(trainer.model, batch)
    if kind == "logistic":
        expected = [by_hand(trainer.reward_model, row) for row in ROWS]
        assert sorted(losses.tolist()) == pytest.approx(sorted(expected), rel=1e-5)
    assert losses.shape == (3,)


def test_divergence_span_by_numbers() -> None:
    """Answers [5 6 9] and [5 7 9 2]: token 0 is the same, so the span is 1..3, and the shorter one keeps its last."""
    chosen_ids, rejected_ids = torch.tensor([[1, 5, 6, 9, 0]]), torch.tensor([[5, 7, 9, 2, 0]])
    chosen_mask = torch.tensor([[False, True, True, True, False]])
    rejected_mask = torch.tensor([[True, True, True, True, False]])
    chosen, rejected = torch.tensor([[99.0, 99.0, 1.0, 2.0, 99.0]]), torch.tensor([[99.0, 0.5, -1.0, 0.0, 99.0]])
    found = divergence_losses(chosen, rejected, chosen_ids, rejected_ids, chosen_mask, rejected_mask, kind="linear")
    assert float(found) == pytest.approx(-((1.0 - 0.5) + (2.0 + 1.0) + (2.0 - 0.0)) / 3)
    same = divergence_losses(chosen, chosen, chosen_ids, chosen_ids, chosen_mask, chosen_mask)
    assert float(same) == pytest.approx(math.log(2))


def test_a_prefix_diverges_where_the_other_goes_on() -> None:
    ids, mask = torch.tensor([[5, 6, 7]]), torch.tensor([[True, True, True]])
    short = torch.tensor([[True, True, False]])
    scores = torch.tensor([[0.0, 1.0, 4.0]])
    found = divergence_losses(scores, scores, ids, ids, mask, short, kind="linear")
    assert float(found) == pytest.approx(-(4.0 - 1.0))


def test_linear_loss_without_a_bound_is_refused_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pair_loss='linear' needs reward_bound=R.*grow until they overflow"):
        reward_settings(tmp_path, pair_loss="linear")
    with pytest.raises(ConfigError, match=r"reward_bound must be unset or a finite number > 0, got -1"):
        reward_settings(tmp_path, reward_bound=-1.0)
    with pytest.raises(ConfigError, match=r"reward_span must be one of sequence, divergence"):
        reward_settings(tmp_path, reward_span="token")


def test_bounded_rewards_stay_in_their_range_and_survive_the_folder(tmp_path: Path) -> None:
    trainer = reward_trainer(
        tiny_classifier(), tmp_path, planted_pairs(32), pair_loss="linear", reward_bound=2.0, max_steps=25,
        eval_dataset=planted_pairs(16, seed=1),
    )  # fmt: skip
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()
    assert -2.0 < after["eval_loss"] < before - 0.1
    assert after["eval_loss"] == pytest.approx(-after["eval_margin"], abs=1e-6)
    assert 0 < after["eval_min_reward"] < after["eval_max_reward"] < 2
    trainer.reward_model.save_pretrained(tmp_path / "model", tiny_tokenizer())
    again = RewardModel.from_pretrained(tmp_path / "model")
    assert again.bound == 2.0
    texts = (["What?"] * 2, ["Pizza.", "Rain."])
    first, second = (score_texts(m, tiny_tokenizer(), *texts) for m in (trainer.reward_model, again))
    assert first.tolist() == pytest.approx(second.tolist(), rel=1e-6)
    assert all(0 < value < 2 for value in first)


def test_sequence_rewards_are_the_token_rewards_at_the_last_token(tmp_path: Path) -> None:
    trainer = reward_trainer(tiny_classifier(), tmp_path, ROWS)
    batch = next(iter(trainer.get_train_dataloader()))
    whole, _ = trainer.both_rewards(trainer.model, batch)
    tokens = token_scores(trainer.model, batch["chosen_input_ids"], batch["chosen_attention_mask"])
    last = batch["chosen_attention_mask"].sum(dim=1) - 1
    torch.testing.assert_close(whole, tokens[torch.arange(3), last])


def test_encoders_have_no_token_rewards(tmp_path: Path) -> None:
    ids = torch.tensor([[3, 4]])
    with pytest.raises(ModelError, match="scores whole sequences only"):
        token_scores(tiny_classifier("bert"), ids, torch.ones_like(ids))


def test_weights_multiply_the_loss_of_their_pair(tmp_path: Path) -> None:
    rows = [{**row, "weight": float(weight)} for row, weight in zip(ROWS, (0.0, 0.5, 2.0), strict=True)]
    trainer = reward_trainer(tiny_classifier(), tmp_path, rows, eval_dataset=rows)
    plain = reward_trainer(tiny_classifier(), tmp_path, ROWS, eval_dataset=ROWS)
    chosen, rejected = [], []
    for row in ROWS:
        for text, side in ((row["chosen"], chosen), (row["rejected"], rejected)):
            side.append(float(score_texts(plain.reward_model, tiny_tokenizer(), [row["prompt"]], [text])[0]))
    losses = pair_losses(torch.tensor(chosen), torch.tensor(rejected)).tolist()
    assert plain.evaluate()["eval_loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)
    expected = (0.5 * losses[1] + 2.0 * losses[2]) / 3
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    batch = next(iter(trainer.get_train_dataloader()))
    assert float(trainer.compute_loss(trainer.model, batch).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("changes", [{"reward_span": "divergence"}, {"pair_loss": "linear", "reward_bound": 2.0}])
def test_training_does_not_depend_on_how_a_step_is_cut_up(tmp_path: Path, changes: dict[str, Any]) -> None:
    rows = [{**row, "weight": 0.5 + number % 3} for number, row in enumerate(planted_pairs(8))]
    whole = reward_trainer(tiny_classifier(), tmp_path / "a", rows, max_steps=3, **changes)
    parts = reward_trainer(
        tiny_classifier(), tmp_path / "b", rows, max_steps=3, per_device_train_batch_size=2,
        gradient_accumulation_steps=4, **changes,
    )  # fmt: skip
    for trainer in (whole, parts):
        trainer.train()
    assert logged(whole, "loss") == pytest.approx(logged(parts, "loss"), rel=1e-5)
    for left, right in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=2e-5, rtol=0)


def test_joint_weights_give_the_sum_of_two_means() -> None:
    demonstrations, preferences = [{"loss": x} for x in (1.0, 2.0, 6.0)], [{"loss": x} for x in (10.0, 20.0)]
    rows = joint_rows(demonstrations, preferences, demonstration_weight=0.5, preference_weight=2.0)
    mean = sum(row["weight"] * row["loss"] for row in rows) / len(rows)
    assert mean == pytest.approx(0.5 * 3.0 + 2.0 * 15.0)
    assert joint_rows(demonstrations, preferences, demonstration_weight=1, preference_weight=0) == demonstrations
    halved = joint_rows(demonstrations, [], demonstration_weight=0.5, preference_weight=0)
    assert [row["weight"] for row in halved] == [0.5] * 3


def test_pairs_leave_out_what_equals_the_demonstration_and_keep_silence() -> None:
    samples = [{"prompt": "What?", "demonstration": "Rice.", "responses": ["Rice. ", "Rain.", ""]}]
    pairs = demonstration_pairs(samples, 2)
    assert [(row["chosen"], row["rejected"], row["round"]) for row in pairs] == [
        ("Rice.", "Rain.", 2),
        ("Rice.", "", 2),
    ]
    encoded = encode_pairs([{**row, "weight": 2} for row in pairs], tiny_tokenizer(), OPTIONS)
    end = tiny_tokenizer().eos_token_id
    silent = encoded[1]
    assert silent["rejected_input_ids"][-1] == end
    assert sum(silent["rejected_completion_mask"]) == 1
    assert silent["weight"] == 2.0
    prompt_length = silent["chosen_completion_mask"].index(True)
    assert silent["rejected_input_ids"][:-1] == silent["chosen_input_ids"][:prompt_length]
    with pytest.raises(DataError, match=r"pair 1: .*no room"):
        encode_pairs(pairs, tiny_tokenizer(), {**OPTIONS, "max_length": 4})


def test_a_weight_that_some_rows_lack_is_an_error(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "weight": 1.0}, {**ROWS[1], "weight": None}]
    with pytest.raises(DataError, match=r"row 2: column 'weight' must be a number, got None"):
        reward_trainer(tiny_classifier(), tmp_path, rows)
    collate = PairCollator(0)
    encoded = [{"chosen_input_ids": [1], "rejected_input_ids": [2], **extra} for extra in ({"weight": 1.0}, {})]
    with pytest.raises(DataError, match="'weight' must stand in every row or in none"):
        collate(encoded)
    with pytest.raises(DataError, match=r"'weight' must be a finite number of at least 0, got -1"):
        reward_trainer(tiny_classifier(), tmp_path, [{**ROWS[0], "weight": -1}])
