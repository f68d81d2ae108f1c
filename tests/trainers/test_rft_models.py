"""One trunk for all: the same numbers as separate models, one copy of the weights, adapters that do not touch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rlsft.evaluation import sample_answers, sequence_kl
from rlsft.models import add_lora, hidden_states, is_lora
from rlsft.rewards import RewardModel, score_texts
from rlsft.rollouts import SamplingParams, TransformersEngine
from rlsft.trainers.rft.config import RFTConfig
from rlsft.trainers.rft.memory import estimate_memory
from rlsft.trainers.rft.models import RunModels, sharing, storage_bytes
from tests.support.models import tiny_model, tiny_tokenizer

LORA = {"r": 4, "lora_alpha": 8}
TEXTS = (["Hello!", "How are you", "I"], ["I am fine.", "We went to the park.", "rice"])


def settings(folder: Path, **changes: object) -> RFTConfig:
    return RFTConfig(str(folder), use_cpu=True, use_peft=True, **changes)  # type: ignore[arg-type]


def drawn_adapter(model: nn.Module, seed: int) -> nn.Module:
    """Every adapter weight, the trained head included, drawn anew: an adapter that changes something."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model with a policy adapter and a reward adapter beside it."""
    folder = tmp_path_factory.mktemp(request.param) / "base"
    tiny_model(request.param).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    models = RunModels(folder, settings(folder.parent, share_trunk=False))
    drawn_adapter(add_lora(models.policy(), LORA), 1).save_pretrained(folder.parent / "policy")  # type: ignore[operator]
    reward = RewardModel.from_pretrained(folder, peft_config=LORA).backbone
    models.save_reward(drawn_adapter(reward, 2), folder.parent / "reward")
    return folder


def both(base: Path) -> tuple[RunModels, RunModels]:
    shared, apart = (RunModels(base, settings(base.parent, share_trunk=flag)) for flag in (True, False))
    return shared, apart


def scores(reward: RewardModel) -> list[float]:
    return score_texts(reward, tiny_tokenizer(), *TEXTS).tolist()


@pytest.mark.parametrize("folder", [None, "reward"])
def test_rewards_are_bit_equal(base: Path, folder: str | None) -> None:
    shared, apart = both(base)
    path = None if folder is None else base.parent / folder
    found, expected = scores(shared.reward(path)), scores(apart.reward(path))
    assert found == expected
    assert len(set(found)) == 3
    # the folder is one that the rest of the package reads
    if path is not None:
        assert scores(RewardModel.from_pretrained(path)) == pytest.approx(found, rel=1e-6)


def test_kl_is_bit_equal_and_not_zero(base: Path) -> None:
    values = []
    for models in both(base):
        policy, reference = models.policy(base.parent / "policy"), models.policy()
        engine = TransformersEngine(policy, tiny_tokenizer())
        answers = sample_answers(
            engine, tiny_tokenizer(), TEXTS[0], model="x", sampling=SamplingParams(max_new_tokens=5, seed=1)
        )
        values.append(sequence_kl(policy, answers, pad_token_id=2, reference=reference).tolist())
        # a reference below the adapter is the same as one beside it
        assert sequence_kl(policy, answers, pad_token_id=2).tolist() == pytest.approx(values[-1], abs=1e-5)
    assert values[0] == values[1]
    assert all(abs(value) > 1e-3 for value in values[0])


def test_the_weights_are_there_once(base: Path) -> None:
    models, _ = both(base)
    policy = models.policy(base.parent / "policy", trainable=True)
    reward, reference = models.reward(base.parent / "reward"), models.policy()
    one = storage_bytes(reference)
    assert storage_bytes(policy, reward, reference) < 1.8 * one  # adapters are large against a model this small
    adapters = sum(
        p.numel() * p.element_size()
        for model in (policy, reward)
        for name, p in model.named_parameters()
        if "lora_" in name or "score" in name
    )
    assert storage_bytes(policy, reward, reference) == one + adapters
    separate = both(base)[1]
    assert storage_bytes(separate.policy(), separate.policy()) == 2 * one


def states(*models: nn.Module) -> list[Tensor]:
    ids = torch.tensor([[5, 9, 30, 7]])
    with torch.no_grad():
        return [hidden_states(model, ids, torch.ones_like(ids)) for model in models]


def test_training_one_model_leaves_the_others_bit_equal(base: Path) -> None:
    models, _ = both(base)
    policy, reference = models.policy(base.parent / "policy", trainable=True), models.policy()
    reward = models.reward(base.parent / "reward", trainable=True)
    before_reward, (before_policy, before_reference) = scores(reward), states(policy, reference)
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=0.5)
    hidden_states(policy, torch.tensor([[5, 9]]), torch.ones(1, 2)).square().mean().backward()
    optimizer.step()
    (after_policy, after_reference) = states(policy, reference)
    assert not torch.equal(after_policy, before_policy)
    assert torch.equal(after_reference, before_reference)
    assert scores(reward) == before_reward
    trained = [p for p in reward.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.1)
    assert scores(reward) != before_reward
    assert torch.equal(states(policy)[0], after_policy)


def test_a_shared_tree_keeps_tied_weights_tied() -> None:
    model = tiny_model("llama")
    other = sharing(model)
    assert other is not model
    assert other.lm_head.weight is other.model.embed_tokens.weight is model.lm_head.weight
    assert is_lora(add_lora(other, LORA))
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_exports_are_plain_folders_with_the_adapter_inside(base: Path, tmp_path: Path) -> None:
    models, _ = both(base)
    expected = scores(models.reward(base.parent / "reward"))
    models.export_reward(base.parent / "reward", tmp_path / "reward", tiny_tokenizer())
    assert scores(RewardModel.from_pretrained(tmp_path / "reward")) == pytest.approx(expected, rel=1e-4)
    from rlsft.models import load_causal_lm

    wanted = states(models.policy(base.parent / "policy"))[0]
    models.export_policy(base.parent / "policy", tmp_path / "policy", tiny_tokenizer())
    torch.testing.assert_close(states(load_causal_lm(tmp_path / "policy"))[0], wanted, atol=1e-5, rtol=1e-4)


def test_a_bound_comes_with_the_settings_because_an_adapter_does_not_hold_it(base: Path) -> None:
    args = settings(base.parent, pair_loss="linear", reward_bound=2.0)
    found = scores(RunModels(base, args).reward(base.parent / "reward"))
    free = scores(both(base)[0].reward(base.parent / "reward"))
    assert found == pytest.approx([2.0 / (1.0 + 2.718281828459045**-x) for x in free], rel=1e-5)


def test_estimates_say_what_sharing_saves(tmp_path: Path) -> None:
    model = tiny_model("llama")
    args = settings(tmp_path, lora_r=2, per_device_train_batch_size=1)
    memory = estimate_memory(model, args, sequence_length=8)
    weights = storage_bytes(model)
    assert memory.shared is not None
    assert memory.separate - memory.shared == 2 * weights
    assert memory.sft < memory.shared < memory.separate
    assert memory.chosen == "shared"
    labels = [row[0] for row in memory.rows()]
    assert labels == ["plain SFT", "RFT, share_trunk=True (this run)", "RFT, share_trunk=False"]
    full = estimate_memory(model, RFTConfig(str(tmp_path), use_cpu=True), sequence_length=8)
    assert full.shared is None
    assert full.separate - full.sft == 2 * weights
    one_round = estimate_memory(model, settings(tmp_path, lora_r=2, rounds=1), sequence_length=8)
    assert one_round.shared is not None
    assert one_round.separate - one_round.shared == weights
