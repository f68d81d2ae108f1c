"""PPO learns: a reward is reached, and the optimum with KL is the one that theory names."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.ppo import LETTERS, letter_model, letter_tokenizer, ppo_trainer

END, TARGET = LETTERS.index("<end>"), LETTERS.index("c")
PROMPT = [{"prompt": "a b"}]


def share_of_c(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(token == TARGET for token in ids) / 4 for ids in completion_ids]


@pytest.mark.parametrize("settings", [{}, {"advantage": "rloo", "samples_per_prompt": 4}])
def test_reward_is_reached(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Four letters, reward the share of c among them: 1/7 at first, above 0.9 after 16 iterations."""
    trainer = ppo_trainer(
        tmp_path,
        letter_model(),
        processing_class=letter_tokenizer(),
        reward_model=[share_of_c],
        train_dataset=[{"prompt": "a b"}, {"prompt": "d"}],
        eval_dataset=[{"prompt": "e f a"}],
        rollout_batch_size=32,
        per_device_train_batch_size=16,
        num_mini_batches=1,
        num_ppo_epochs=4,
        total_episodes=32 * 16,
        max_completion_length=4,
        kl_coef=0.0,
        learning_rate=5e-3,
        logging_steps=4,
        **settings,
    )
    before = trainer.evaluate()["eval_objective/scores"]
    trainer.train()
    scores = [row["objective/scores"] for row in trainer.state.log_history if "objective/scores" in row]
    assert scores[0] < 0.4
    assert scores[-1] > 0.9
    assert before < 0.8 < trainer.evaluate()["eval_objective/scores"]  # a prompt it never saw


ANSWERS = [(END,), *itertools.product(range(1, len(LETTERS)), range(len(LETTERS)))]
VALUE_OF = dict(zip(range(len(LETTERS)), (0.0, 0.0, 1.0, -1.0, 0.5, 0.0, -0.5), strict=True))


def value_of(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Not a sum over letters alone: the second letter counts more after b."""
    return [
        sum(VALUE_OF[token] for token in ids) + (1.0 if ids[:1] == [2] and ids[-1] == 4 else 0.0)
        for ids in completion_ids
    ]


@torch.no_grad()
def distribution(model: torch.nn.Module, prompt: list[int]) -> torch.Tensor:
    """Exact probability of each of ANSWERS."""
    first = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    rows = torch.tensor([[*prompt, letter] for letter in range(1, len(LETTERS))])
    second = model(rows).logits[:, -1].softmax(-1)
    return torch.cat([first[:1], (first[1:, None] * second).flatten()])


def test_optimum_with_kl_is_the_tilted_reference(tmp_path: Path) -> None:
    """`pi* = pi_ref exp(r / beta) / Z` over the 43 answers of at most two letters, to 4 % in total variation."""
    beta = 0.5
    model = letter_model()
    prompt = letter_tokenizer()("a b")["input_ids"]
    reference = distribution(model, prompt)
    assert reference.sum() == pytest.approx(1.0, abs=1e-5)
    rewards = torch.tensor(value_of([list(answer) for answer in ANSWERS]))
    optimum = (reference.log() + rewards / beta).softmax(0)
    assert (optimum - reference).abs().sum() / 2 > 0.5  # there is a way to go
    trainer = ppo_trainer(
        tmp_path,
        model,
        processing_class=letter_tokenizer(),
        reward_model=[value_of],
        train_dataset=PROMPT,
        rollout_batch_size=256,
        per_device_train_batch_size=256,
        num_mini_batches=1,
        num_ppo_epochs=1,
        total_episodes=256 * 40,
        max_completion_length=2,
        kl_coef=beta,
        lam=1.0,
        learning_rate=8e-3,
        lr_scheduler_type="linear",
        generation_batch_size=256,
        logging_steps=8,
    )
    trainer.train()
    learned = distribution(trainer.policy, prompt)
    distance = float((learned - optimum).abs().sum() / 2)
    assert distance < 0.04, f"total variation {distance:.3f}"
    exact_kl = float((learned * (learned / reference).log()).sum())
    logged = [row["objective/kl"] for row in trainer.state.log_history if "objective/kl" in row][-1]
    assert logged == pytest.approx(exact_kl, rel=0.2)
