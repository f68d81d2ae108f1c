"""PPOTrainer: its invariants, its faults, its files."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from rlsft.errors import ConfigError, DataError, ModelError, RunError
from rlsft.models import add_lora
from rlsft.rewards import RewardModel
from rlsft.rollouts import Completion, TransformersEngine
from rlsft.trainers.ppo.actor_critic import ActorCritic
from rlsft.trainers.ppo.value import ValueModel
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.ppo import LORA, PROMPTS, assert_equal_states, e_share, parameters_of, ppo_trainer, rows_of
from tests.support.rewarding import tiny_classifier


@pytest.mark.parametrize(
    ("family", "dropout", "settings"),
    [
        ("llama", {"attention_dropout": 0.2}, {}),
        ("gpt2", {"attn_pdrop": 0.1, "resid_pdrop": 0.1, "embd_pdrop": 0.1}, {}),
        ("gemma2", {}, {"temperature": 0.7}),
        ("llama", {"attention_dropout": 0.2}, {"peft_config": {**LORA, "lora_dropout": 0.3}}),
        ("llama", {}, {"value_model": "separate", "samples_per_prompt": 2}),
        ("llama", {"attention_dropout": 0.2}, {"activation_checkpointing": True}),
    ],
)
def test_first_ratio_is_one_and_first_kl_is_zero(
    tmp_path: Path, family: str, dropout: dict[str, float], settings: dict[str, Any]
) -> None:
    """C06: dropout on in every place that has one; the answers differ in length, so padding takes part."""
    if settings.get("value_model") == "separate":
        settings = {**settings, "value_model": ValueModel.separate_from(tiny_model(family))}
    trainer = ppo_trainer(tmp_path, tiny_model(family, **dropout), max_steps=1, **settings)
    trainer.train()
    (row,) = rows_of(trainer)
    assert row["val/ratio"] == 1.0
    assert row["val/ratio_var"] == 0.0
    assert row["policy/approxkl_avg"] == 0.0
    assert row["objective/kl"] == 0.0
    assert row["objective/kl_k3"] == 0.0
    assert row["sampling/sampling_logp_difference/mean"] < 1e-4


def test_a_policy_that_scores_otherwise_in_training_is_refused(tmp_path: Path) -> None:
    model = tiny_model("llama")
    noisy = lambda module, _args, output: output + 0.5 * torch.randn_like(output) if module.training else None  # noqa: E731
    model.model.norm.register_forward_hook(noisy)
    with pytest.raises(RunError, match=r"the probability ratio must be 1.*dropout that disable_dropout does not know"):
        ppo_trainer(tmp_path, model).train()


def test_a_policy_that_is_no_function_of_its_input_is_refused(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.model.norm.register_forward_hook(lambda _m, _a, output: output + 0.5 * torch.randn_like(output))
    with pytest.raises(RunError, match="the KL to the reference must be 0"):
        ppo_trainer(tmp_path, model).train()


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_micro_batch_size_does_not_change_the_steps(tmp_path: Path, micro_batch: int) -> None:
    """C18: 8 answers a step of uneven lengths, in one piece, in 3 + 3 + 2, or one by one."""
    plain = {"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 0.0, "entropy_coef": 0.01}

    def train(size: int) -> Any:
        model = tiny_model("llama", initializer_range=0.3, dtype=torch.float64)  # rounding would grow over the steps
        trainer = ppo_trainer(tmp_path / str(size), model, per_device_train_batch_size=size, stop_token=None, **plain)
        trainer.maker.engine.stop_token_ids = list(range(0, 400, 3))
        trainer.train()
        return trainer

    whole, parts = train(8), train(micro_batch)
    assert whole.args.gradient_accumulation_steps == 1
    assert parts.args.gradient_accumulation_steps == -(-8 // micro_batch)
    lengths = [
        row["completions/max_length"] - row["completions/min_length"] for row in rows_of(whole) if "reward" in row
    ]
    assert max(lengths) > 2
    for one, other in zip(rows_of(whole), rows_of(parts), strict=True):
        for key in ("loss", "grad_norm", "policy/entropy_avg", "loss/value_avg"):
            assert one[key] == pytest.approx(other[key], rel=1e-5, abs=1e-6), key
    for name, value in parameters_of(whole).items():
        assert torch.allclose(value, parameters_of(parts)[name], atol=1e-6), name


def test_same_seed_twice_is_equal_and_another_is_not(tmp_path: Path) -> None:
    runs = []
    for number, seed in enumerate((1, 1, 2)):
        runs.append(ppo_trainer(tmp_path / str(number), seed=seed))
        runs[-1].train()
    assert_equal_states(runs[0], runs[1])
    assert any(not torch.equal(a, b) for a, b in zip(*(parameters_of(run).values() for run in runs[1:]), strict=True))


class At(TrainerCallback):
    """Calls a function before step `step` begins its work."""

    def __init__(self, step: int, action: Any):
        self.step, self.action = step, action

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.action(args)


def test_temperature_travels_with_the_rollout(tmp_path: Path) -> None:
    """C03: the config's temperature changed after drawing has no effect on the answers in use."""
    plain = ppo_trainer(tmp_path / "a", temperature=0.7, max_steps=4)
    plain.train()
    change = At(1, lambda args: setattr(args, "temperature", 1.7))
    changed = ppo_trainer(tmp_path / "b", temperature=0.7, max_steps=4, callbacks=[change])
    changed.train()
    assert changed.args.temperature == 1.7
    assert_equal_states(plain, changed)
    assert rows_of(plain)[0]["sampling/sampling_logp_difference/mean"] < 1e-4


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_step_is_skipped_counted_and_dumped(tmp_path: Path, where: str) -> None:
    """C08: parameters unchanged, counter 1."""
    trainer = ppo_trainer(tmp_path, max_steps=1)
    before = parameters_of(trainer)
    honest = trainer.compute_loss

    def broken(*args: Any, **kwargs: Any) -> Any:
        loss = honest(*args, **kwargs)
        if where == "loss":
            return loss * float("nan")
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss * 1.0

    trainer.compute_loss = broken  # type: ignore[method-assign]
    trainer.train()
    for name, value in parameters_of(trainer).items():
        assert torch.equal(value, before[name]), name
    assert trainer.guard.skipped == 1
    row = rows_of(trainer)[-1]
    assert row["nonfinite_steps"] == 1
    assert all(value == value and abs(value) != float("inf") for value in row.values())  # no NaN in a row
    if where == "loss":
        assert list((tmp_path / "debug").glob("nonfinite_step_1_rank_0.safetensors"))


def test_step_with_a_wild_ratio_is_skipped_and_counted(tmp_path: Path) -> None:
    """C07: the old log-probabilities are pushed down by 5 nats, so the mean ratio is about e^5."""
    trainer = ppo_trainer(tmp_path, max_steps=2)
    start: dict[str, torch.Tensor] = {}
    select = trainer.get_batch_samples

    def pushed(*args: Any) -> Any:
        parts, count = select(*args)
        if trainer.state.global_step == 1:
            start.update(parameters_of(trainer))
            parts = [part.with_(old_logprobs=part.old_logprobs - 5.0) for part in parts]
        return parts, count

    trainer.get_batch_samples = pushed  # type: ignore[method-assign]
    trainer.train()
    for name, value in parameters_of(trainer).items():
        assert torch.equal(value, start[name]), name
    assert rows_of(trainer)[-1]["skipped_ratio_steps"] == 1
    assert rows_of(trainer)[-1]["val/ratio"] > 100


def test_adaptive_kl_rises_above_target_and_fixed_stays(tmp_path: Path) -> None:
    """C07: the target is tiny, so once the policy has moved the weight must grow; it acts on the next iteration."""
    weights = {}
    for kind in ("adaptive", "fixed"):
        trainer = ppo_trainer(tmp_path / kind, kl_ctrl=kind, kl_target=1e-4, kl_horizon=100.0, learning_rate=1e-2)
        trainer.train()
        weights[kind] = [row["objective/kl_coef"] for row in rows_of(trainer) if "objective/kl_coef" in row]
    assert weights["fixed"] == [0.05] * 3
    assert weights["adaptive"][0] == 0.05
    assert weights["adaptive"][1] < 0.05  # the first KL is 0, below any target
    assert weights["adaptive"][2] > weights["adaptive"][1]


def test_lora_policy_needs_no_second_model(tmp_path: Path) -> None:
    base = tiny_model("llama", initializer_range=0.1)
    frozen = copy.deepcopy(base.state_dict())
    trainer = ppo_trainer(tmp_path, base, peft_config=LORA, learning_rate=1e-2)
    assert trainer.maker.reference.model is None
    trainer.train()
    kls = [row["objective/kl_k3"] for row in rows_of(trainer) if "objective/kl_k3" in row]
    assert kls[0] == 0.0
    assert kls[-1] > 1e-5
    weights = {name.replace(".base_layer", ""): p for name, p in trainer.policy.get_base_model().state_dict().items()}
    assert all(torch.equal(weights[name], value) for name, value in frozen.items())


def test_trained_adapter_is_copied_as_reference(tmp_path: Path) -> None:
    """The base below a trained adapter is not the policy that training starts from."""
    model = add_lora(tiny_model("llama"), LORA)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    trainer = ppo_trainer(tmp_path, model, max_steps=1)
    assert trainer.maker.reference.model is not None
    trainer.train()
    assert rows_of(trainer)[0]["objective/kl"] == 0.0


def test_given_reference_is_used_and_left_alone(tmp_path: Path) -> None:
    other = tiny_model("llama", seed=5, initializer_range=0.1)
    before = copy.deepcopy(other.state_dict())
    trainer = ppo_trainer(tmp_path, ref_model=other, learning_rate=1e-2)
    trainer.train()
    assert rows_of(trainer)[0]["objective/kl"] != 0.0
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_value_model_saves_and_reloads_equal(tmp_path: Path, kind: str) -> None:
    """C20."""
    trainer = ppo_trainer(tmp_path, **({} if kind == "shared" else {"value_model": tiny_model("llama", seed=3)}))
    assert trainer.value.is_shared == (kind == "shared")
    trainer.train()
    assert trainer.value.head.weight.abs().sum() > 0
    trainer.save_model()
    again = ValueModel.from_pretrained(tmp_path / "value_model")
    ids, hidden = torch.randint(3, 400, (2, 7)), torch.randn(2, 7, 32)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        assert torch.equal(again(ids, mask, hidden), trainer.value.eval()(ids, mask, hidden))
    policy = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), trainer.policy.parameters(), strict=True))


def test_value_of_a_token_knows_only_what_stands_before_it() -> None:
    """Position t is the value before token t was chosen; that of the first answer token sees the whole prompt."""
    policy = tiny_model("llama")
    pair = ActorCritic(policy, ValueModel.shared_with(policy))
    torch.nn.init.normal_(pair.value.head.weight)
    ids = torch.randint(3, 400, (1, 6))
    mask = torch.ones(1, 6, dtype=torch.bool)
    answer = torch.tensor([[False] * 3 + [True] * 3])

    def values(changed: int | None = None) -> torch.Tensor:
        other = ids.clone()
        if changed is not None:
            other[0, changed] = (other[0, changed] + 7) % 400
        return pair(other, mask, answer, prompt_width=3, temperature=1.0).values[0]

    assert values().shape == (3,)
    assert (values(2) != values()).all()  # the last prompt token
    assert (values(3) == values()).tolist() == [True, False, False]
    assert (values(4) == values()).tolist() == [True, True, False]
    assert (values(5) == values()).all()


def test_value_model_learns_at_its_own_rate(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path, value_learning_rate=0.1, learning_rate=1e-12, max_steps=2)
    before = parameters_of(trainer)
    trainer.train()
    moved = {n for n, p in parameters_of(trainer).items() if (p - before[n]).abs().max() > 1e-6}
    assert moved == {"value.head.weight", "value.head.bias"}


def test_separate_value_model_from_the_policy_needs_a_plain_policy(tmp_path: Path) -> None:
    model = add_lora(tiny_model("llama"), LORA)
    with pytest.raises(ModelError, match="separate value model cannot be copied from a policy with an adapter"):
        ValueModel.separate_from(model)
    with pytest.raises(ModelError, match="holds no value model"):
        ValueModel.from_pretrained(tmp_path)


def test_sequence_classifier_gives_its_head_to_the_value_model() -> None:
    classifier = tiny_classifier("llama")
    value = ValueModel.separate_from(classifier)
    assert torch.equal(value.head.weight, classifier.score.weight)
    assert not value.is_shared


def test_rloo_has_no_value_model(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path, advantage="rloo", samples_per_prompt=4, max_steps=4)
    trainer.train()
    assert trainer.value is None
    assert "loss/value_avg" not in rows_of(trainer)[0]
    trainer.save_model()
    assert not (tmp_path / "value_model").exists()


class ShiftedEngine:
    """Our engine, whose log-probabilities are off by a constant: a sampler that computes otherwise."""

    def __init__(self, inner: TransformersEngine, shift: float):
        self.inner, self.shift = inner, shift

    def generate(self, prompt_ids: Any, sampling: Any, num_samples: int = 1) -> list[list[Completion]]:
        return [
            [replace(c, logprobs=[logprob + self.shift for logprob in c.logprobs]) for c in group]
            for group in self.inner.generate(prompt_ids, sampling, num_samples)
        ]


def test_disagreeing_engine_is_logged_and_weighed(tmp_path: Path) -> None:
    """C16: the engine says 0.5 nats more than we do, so every weight is e^-0.5."""
    model = tiny_model("llama")
    engine = ShiftedEngine(TransformersEngine(model, tiny_tokenizer()), 0.5)
    trainer = ppo_trainer(tmp_path, model, engine=engine, importance_correction="truncate", max_steps=1)
    trainer.train()
    row = rows_of(trainer)[0]
    assert row["sampling/sampling_logp_difference/mean"] == pytest.approx(0.5, abs=1e-4)
    assert row["val/ratio"] == 1.0  # the loss compares our own log-probabilities
    weights = trainer._batch.weights[trainer._batch.completion_mask]
    assert torch.allclose(weights, torch.full_like(weights, 0.6065307), atol=1e-4)


def test_reward_model_scores_the_answers(tmp_path: Path) -> None:
    reward = RewardModel(tiny_classifier("llama"))
    trainer = ppo_trainer(tmp_path / "a", reward_model=reward, max_steps=4)
    trainer.train()
    assert rows_of(trainer)[0]["rewards/reward_model/std"] > 0
    assert not any(p.requires_grad for p in reward.parameters())
    reward.save_pretrained(tmp_path / "reward")
    tiny_tokenizer().save_pretrained(tmp_path / "reward")
    from_folder = ppo_trainer(tmp_path / "b", reward_model=str(tmp_path / "reward"), max_steps=4)
    from_folder.train()
    assert_equal_states(trainer, from_folder)


def test_unusable_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reward_model is missing"):
        ppo_trainer(tmp_path, reward_model=None)
    with pytest.raises(ConfigError, match="must be a RewardModel"):
        ppo_trainer(tmp_path, reward_model=tiny_classifier("llama"))
    with pytest.raises(DataError, match=r"train_dataset needs a column 'prompt' .* it has 'question'"):
        ppo_trainer(tmp_path, train_dataset=[{"question": "?"}])
    with pytest.raises(DataError, match="train_dataset has no rows"):
        ppo_trainer(tmp_path, train_dataset=[])
    with pytest.raises(ConfigError, match="max_completion_length=64 leaves no room for a prompt within 64 tokens"):
        ppo_trainer(tmp_path, max_completion_length=64)
    with pytest.raises(ConfigError, match="eval_dataset is missing"):
        ppo_trainer(tmp_path).evaluate()
    with pytest.raises(ConfigError, match="must be one token"):
        ppo_trainer(tmp_path, stop_token="Hello! How are you")


TRL_NAMES = {
    "objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores",
    "policy/approxkl_avg", "policy/clipfrac_avg", "policy/entropy_avg", "loss/policy_avg", "loss/value_avg",
    "val/clipfrac_avg", "val/ratio", "val/ratio_var", "val/num_eos_tokens", "lr", "episode", "eps",
}  # fmt: skip
OUR_NAMES = {
    "objective/kl_coef", "objective/explained_variance", "health/distinct_2", "health/repetition", "reward",
    "reward_std", "frac_reward_zero_std", "completions/mean_length", "completions/min_length",
    "completions/max_length", "completions/clipped_ratio", "perf/tokens_per_second", "rewards/e_share/mean",
}  # fmt: skip


def test_statistics_have_the_names_people_know(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path)
    trainer.train()
    first = rows_of(trainer)[0]
    assert first.keys() >= TRL_NAMES | OUR_NAMES
    assert first["objective/rlhf_reward"] == pytest.approx(first["objective/scores"])  # KL is 0
    assert [row["episode"] for row in rows_of(trainer)] == [16] * 4 + [32] * 4 + [48] * 4
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["stage"] == "ppo"
    assert lines[0]["objective/scores"] == first["objective/scores"]


def test_completions_are_written_as_tables(tmp_path: Path) -> None:
    chats = [{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in PROMPTS]
    trainer = ppo_trainer(
        tmp_path, train_dataset=chats, eval_dataset=chats[:3], log_completions=True, num_sample_generations=3
    )
    trainer.train()
    names = sorted(file.name for file in (tmp_path / "completions").iterdir())
    kinds = ("completions", "generations")
    assert names == [f"{kind}_{step:05d}.parquet" for kind in kinds for step in (0, 4, 8)]
    table = parquet.read_table(tmp_path / "completions" / "completions_00004.parquet").to_pylist()
    assert len(table) == 16
    assert table[0].keys() == {"step", "prompt", "completion", "e_share", "score", "shaped_score", "advantage"}
    assert table[0]["score"] == pytest.approx(e_share([("", table[0]["completion"])])[0])
    shown = parquet.read_table(tmp_path / "completions" / "generations_00008.parquet").to_pylist()
    assert [row["prompt"] for row in shown] == [row["prompt"][0]["content"] for row in chats[:3]]


def test_evaluate_is_repeatable_and_does_not_disturb_training(tmp_path: Path) -> None:
    plain = ppo_trainer(tmp_path / "a")
    plain.train()
    watched = ppo_trainer(
        tmp_path / "b", eval_dataset={"x": PROMPTS[:3], "y": PROMPTS[3:]}, eval_strategy="steps", eval_steps=3,
        compute_metrics=lambda rollouts: {"longest": float(max(map(len, rollouts.answers.completion_ids)))},
    )  # fmt: skip
    watched.train()
    assert_equal_states(plain, watched)
    metrics = watched.evaluate()
    again = watched.evaluate()
    del metrics["eval_runtime"], again["eval_runtime"]
    assert metrics == again
    assert metrics["eval_x_longest"] <= 6
    assert metrics["eval_y_objective/kl_k3"] >= 0
    assert metrics["eval_x_reward"] == metrics["eval_x_objective/scores"]


def test_best_policy_is_loaded_at_the_end(tmp_path: Path) -> None:
    """A metric of the user's that only falls: the first checkpoint is the best."""
    falling = iter(range(9, 0, -1))
    trainer = ppo_trainer(
        tmp_path, eval_dataset=PROMPTS[:3], eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2,
        load_best_model_at_end=True, metric_for_best_model="kpi", greater_is_better=True, max_steps=4,
        compute_metrics=lambda rollouts: {"kpi": float(next(falling))},
    )  # fmt: skip
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
    best = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-2")
    last = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-4")
    assert all(torch.equal(a, b) for a, b in zip(best.parameters(), trainer.policy.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(best.parameters(), last.parameters(), strict=True))


def test_save_policy_is_a_plain_folder_with_the_adapter_merged(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path / "run", peft_config=LORA, learning_rate=1e-2)
    trainer.train()
    trainer.save_policy(tmp_path / "plain")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    ids = torch.randint(3, 400, (2, 9))
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits, trainer.policy.eval()(ids).logits, atol=1e-5)
    trainer.save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "plain" / "tokenizer.json").is_file()
