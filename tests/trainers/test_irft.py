"""IRFT: rounds begin at log 2, the loop equals one written plainly, DPO equals TRL's, and batches change nothing."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlsft.artifacts import read_jsonl
from rlsft.errors import ConfigError, DataError
from rlsft.rollouts import Completion
from rlsft.trainers.irft.config import IRFTConfig
from rlsft.trainers.irft.pairs import Demonstrations, Pair
from rlsft.trainers.irft.trainer import IRFTTrainer
from tests.support.irft import first_batch, irft_settings, irft_trainer, preference_rows, round_starts
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.ppo import LETTERS, LORA, letter_model, letter_tokenizer
from tests.support.training import demonstrations, equal_parameters, gradients, logged

LOG2 = math.log(2)


def plain_logprob(model: nn.Module, prompt: list[int], answer: list[int]) -> Tensor:
    """Summed log-probability of one answer from the model's own logits, no padding, no fused op."""
    ids = torch.tensor([prompt + answer])
    logprobs = model(ids).logits[0, :-1].log_softmax(-1)
    return logprobs[len(prompt) - 1 :].gather(1, ids[0, len(prompt) :, None]).sum()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"refresh": "shards"},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1, "samples_per_prompt": 2},
        {"peft_config": LORA},
        {"replay_rounds": 1, "rounds": 3},  # old answers are scored anew, under the new reference
        {"loss_type": "linear", "steps_per_round": 2, "rounds": 3},
        {"refresh": "full", "prompts_per_round": 5, "optimizer_per_round": "carry"},
    ],
)
def test_every_round_begins_at_its_reference(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Log-ratios are 0 to the last bit: the same rows are scored in the same shape, no dropout, no second model."""
    trainer = irft_trainer(tmp_path, **settings)
    trainer.train()
    starts = round_starts(trainer)
    assert len(starts) == trainer.args.rounds
    for row in starts:
        assert row["rewards/real"] == row["rewards/generated"] == row["margin"] == 0
        assert row.get("kl/generator", 0) == 0  # unknown where a step has replays only
        at_zero = 0.0 if settings.get("loss_type") == "linear" else LOG2
        assert row["loss"] == pytest.approx(at_zero, abs=1e-6)
    assert abs(logged(trainer, "margin")[-1]) > 1e-3


def test_the_initial_reference_leaves_log_2_behind(tmp_path: Path) -> None:
    """Round 0 begins there, round 1 does not: adapter off, and a frozen copy, give the same numbers as they should."""
    for name, extra in (("adapter", {"peft_config": LORA}), ("full", {})):
        trainer = irft_trainer(tmp_path / name, reference="initial", learning_rate=1e-2, **extra)
        start = copy.deepcopy(trainer.model)
        assert (trainer.maker.reference.copy is None) == (name == "adapter")
        trainer.train()
        first, second = round_starts(trainer)
        assert first["loss"] == pytest.approx(LOG2, abs=1e-6)
        assert abs(second["loss"] - LOG2) > 1e-2
        pair = trainer.rounds.state.pairs[2]  # type: ignore[union-attr]
        data = trainer.rounds.data  # type: ignore[union-attr]
        expected = plain_logprob(start, data.prompt(pair.prompt), pair.answer())
        assert pair.reference_generated == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_single_round_needs_no_second_model(tmp_path: Path) -> None:
    assert irft_trainer(tmp_path, reference="initial", rounds=1).maker.reference.copy is None


@pytest.mark.parametrize("rounds", [1, 2])
def test_spin_is_a_plain_loop(tmp_path: Path, rounds: int) -> None:
    """SPIN's iteration (rounds=1), and two of them in a row: frozen copy, full logits, logistic loss, plain AdamW."""
    preset = IRFTConfig.spin(tmp_path / "preset")
    assert (preset.rounds, preset.refresh, preset.reference) == (1, "full", "previous")
    assert (preset.loss_type, preset.replay_rounds, preset.samples_per_prompt) == ("logistic", 0, 1)
    trainer = irft_trainer(tmp_path, rounds=rounds, beta=0.7, max_grad_norm=0.0, weight_decay=0.0)
    plain = copy.deepcopy(trainer.model)
    start = {name: parameter.detach().clone() for name, parameter in plain.named_parameters()}
    assert trainer.rounds is not None
    trainer.train()
    data, schedule = trainer.rounds.data, trainer.rounds.schedule
    for number in range(rounds):
        rows = read_jsonl(tmp_path / "negatives" / f"round_0{number}.jsonl")[1:]
        frozen = copy.deepcopy(plain)
        optimizer = torch.optim.AdamW(plain.parameters(), lr=trainer.args.learning_rate, weight_decay=0.0)
        for step in range(schedule.steps(number)):
            losses = []
            for row in (rows[k] for k in schedule.rows(number, step)):
                prompt = data.prompt(row["prompt_row"])
                ratios = [
                    plain_logprob(plain, prompt, answer) - plain_logprob(frozen, prompt, answer).detach()
                    for answer in (data.real(row["prompt_row"]), row["token_ids"])
                ]
                losses.append(-nn.functional.logsigmoid(0.7 * (ratios[0] - ratios[1])))
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
    moved = 0.0
    for (name, ours), theirs in zip(trainer.model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")
        moved = max(moved, float((ours - start[name]).detach().abs().max()))
    assert moved > 2e-3  # a hundred times the tolerance


def every_answer(length: int) -> list[list[int]]:
    """All answers of the letter world up to `length` tokens: ended (0), or cut off at the limit."""
    answers: list[list[int]] = []
    for token in range(len(LETTERS)):
        if token == 0 or length == 1:
            answers.append([token])
        else:
            answers += [[token, *rest] for rest in every_answer(length - 1)]
    return answers


@pytest.mark.parametrize("loss_type", ["logistic", "nce"])
def test_the_first_step_is_a_multiple_of_sft(tmp_path: Path, loss_type: str) -> None:
    """E_z[gradient of the trainer's loss] = a * gradient of the demonstrations' summed NLL, all 43 answers counted."""
    model = letter_model(seed=1).double()
    rows = [{"prompt": "a b", "completion": "c d"}]
    trainer = irft_trainer(
        tmp_path, model, rows, processing_class=letter_tokenizer(), loss_type=loss_type, max_completion_length=2,
        beta=0.4, nce_mu=2.0,
    )  # fmt: skip
    data = Demonstrations(trainer.train_dataset)
    prompt, real = data.prompt(0), data.real(0)
    answers = every_answer(2)
    assert len(answers) == 43
    chances = [float(plain_logprob(model, prompt, answer).detach().exp()) for answer in answers]
    assert sum(chances) == pytest.approx(1, abs=1e-9)
    pairs = [Pair(prompt=0, generated=answer) for answer in answers]
    trainer.maker.score(data, pairs, [list(range(43))])
    batch = trainer.maker.collate(pairs, data)
    expected: dict[str, Tensor] = {}
    for row, chance in enumerate(chances):
        model.zero_grad()
        one = {name: value.view(2, 43, -1)[:, row].squeeze(-1) for name, value in batch.items() if len(value) == 86}
        one |= {name: value[row : row + 1] for name, value in batch.items() if len(value) == 43}
        one["input_ids"], one["attention_mask"] = one["input_ids"].long(), one["attention_mask"].long()
        trainer.compute_loss(model, one, num_items_in_batch=torch.tensor(1)).backward()
        for name, gradient in gradients(model).items():
            expected[name] = expected.get(name, torch.zeros_like(gradient)) + chance * gradient
    model.zero_grad()
    (-plain_logprob(model, prompt, real)).backward()
    factor = {"logistic": 0.4 / 2, "nce": 2 / 3}[loss_type]
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(expected[name], factor * gradient, rtol=1e-4, atol=1e-6)  # norms compute in float32


def test_given_pairs_are_dpo_as_trl_has_it(tmp_path: Path) -> None:
    """Loss and gradient of one batch, policy and reference being different models, against TRL's DPOTrainer."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    answers = [("c d", "e"), ("f", "a b c d"), ("a a a", "b b"), ("d e f", "d"), ("b", "c c c c c")]
    rows = [{"prompt": "a b" + " c" * k, "chosen": y, "rejected": z} for k, (y, z) in enumerate(answers)]
    reference, policy = letter_model(seed=1), letter_model(seed=2)
    ours = irft_trainer(
        tmp_path, copy.deepcopy(reference), rows, processing_class=letter_tokenizer(), refresh="none", rounds=1,
        beta=0.3, per_device_train_batch_size=5,
    )  # fmt: skip
    (batch,), items = first_batch(ours)  # scored under the reference
    ours.model.load_state_dict(policy.state_dict())
    loss = ours.compute_loss(ours.model, batch, num_items_in_batch=items)
    loss.backward()
    theirs = DPOTrainer(
        model=policy,
        ref_model=reference,
        args=DPOConfig(str(tmp_path / "trl"), beta=0.3, use_cpu=True, report_to=[], bf16=False, max_length=128,
                       per_device_train_batch_size=5, gradient_checkpointing=False, disable_dropout=True),
        train_dataset=Dataset.from_list(
            [{**row, "chosen": f" {row['chosen']}", "rejected": f" {row['rejected']}"} for row in rows]
        ),
        processing_class=letter_tokenizer(),
    )  # fmt: skip
    their_loss = theirs.compute_loss(theirs.model, next(iter(theirs.get_train_dataloader())))
    their_loss.backward()
    assert loss.item() == pytest.approx(their_loss.item(), abs=1e-5)
    assert abs(loss.item() - LOG2) > 1e-2
    reference_gradients = gradients(theirs.model)
    for name, gradient in gradients(ours.model).items():
        torch.testing.assert_close(gradient, reference_gradients[name], rtol=1e-3, atol=1e-6)


def test_given_pairs_learn_the_preference(tmp_path: Path) -> None:
    trainer = irft_trainer(
        tmp_path, None, preference_rows(), refresh="none", rounds=1, epochs_per_round=8, learning_rate=5e-3,
        eval_dataset=preference_rows(),
    )  # fmt: skip
    trainer.train()
    assert logged(trainer, "accuracy")[-1] == 1.0
    assert trainer.evaluate()["eval_accuracy"] == 1.0
    assert not (tmp_path / "negatives").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 6},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
    ],
)
@pytest.mark.parametrize("sft_coef", [0.0, 0.1])
def test_micro_batches_change_nothing(tmp_path: Path, changes: dict[str, int], sft_coef: float) -> None:
    """Invariants 1 and 3: padded equals unpadded, and one step of six equals any cut of it; 16 pairs leave 4 over."""
    common = {"rows": demonstrations(8), "samples_per_prompt": 2, "optim": "sgd", "learning_rate": 0.02}
    common |= {"sft_coef": sft_coef, "rounds": 1}
    whole = irft_trainer(tmp_path / "whole", per_device_train_batch_size=6, **common)
    cut = irft_trainer(tmp_path / "cut", **changes, **common)
    whole.train()
    cut.train()
    for name in ("loss", "grad_norm", "margin", "logps/real", "kl/generator", "num_tokens"):
        assert logged(whole, name)[:6] == pytest.approx(logged(cut, name)[:6], rel=2e-4, abs=2e-5), name
    assert len(logged(whole, "loss")) == 6  # two passes over 6 + 6 + 4 pairs
    left, right = dict(whole.model.named_parameters()), dict(cut.model.named_parameters())
    for name, parameter in left.items():
        torch.testing.assert_close(parameter, right[name], rtol=1e-4, atol=1e-6)


def test_every_pair_is_seen_once_a_pass_and_the_mean_is_over_them(tmp_path: Path) -> None:
    """The last step of a pass has fewer pairs, and micro-batches without a pair: its loss is the mean over the rest."""
    trainer = irft_trainer(
        tmp_path, rows=demonstrations(7), per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    first_batch(trainer)
    assert trainer.rounds is not None
    seen = [trainer.rounds.schedule.rows(0, step) for step in range(4)]
    assert sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3]) == list(range(7))
    assert seen[0] != seen[2]
    batches, items = trainer.rounds.batches(1)
    assert items == 3
    assert [bool(batch["counted"].any()) for batch in batches] == [True, True, True, False]
    losses = [trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(items)) for batch in batches]
    assert torch.stack(losses).sum().item() == pytest.approx(LOG2, abs=1e-6)
    assert losses[3].item() == 0
    losses[3].backward()
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients(trainer.model).values())


def test_the_end_token_counts_where_it_was_drawn(tmp_path: Path) -> None:
    """Invariant 5: pad is the end token here; a drawn one is scored, one that was not drawn is not added."""

    class Scripted:
        def generate(self, prompt_ids: list[list[int]], sampling: Any, num_samples: int = 1) -> list[list[Completion]]:
            ends = [Completion([9, 2], "stop"), Completion([9, 10], "length")]
            return [[ends[k % 2]] for k in range(len(prompt_ids))]

    trainer = IRFTTrainer(
        tiny_model("llama"), irft_settings(tmp_path), demonstrations(2), processing_class=tiny_tokenizer(),
        engine=Scripted(),
    )  # fmt: skip
    (batch,), _ = first_batch(trainer)
    assert trainer.rounds is not None
    pairs, data = trainer.rounds.state.pairs, trainer.rounds.data
    assert [pair.ended for pair in pairs] == [True, False]
    for pair in pairs:
        expected = plain_logprob(trainer.model, data.prompt(pair.prompt), pair.answer())
        assert pair.reference_generated == pytest.approx(float(expected.detach()), rel=1e-5)
        real = plain_logprob(trainer.model, data.prompt(pair.prompt), data.real(pair.prompt))
        assert pair.reference_real == pytest.approx(float(real.detach()), rel=1e-5)
        assert data.real(pair.prompt)[-1] == tiny_tokenizer().eos_token_id
        assert math.isnan(pair.generator_logprob) or pair.generator_logprob == pair.reference_generated
    assert batch["completion_mask"].sum().item() == sum(len(data.real(k)) + 2 for k in (0, 1))


def test_draws_start_where_training_does(tmp_path: Path) -> None:
    """The template of generation is that of training: answers continue the very ids before the demonstration."""
    trainer = irft_trainer(tmp_path)
    data = Demonstrations(trainer.train_dataset)
    text = tiny_tokenizer().decode(data.drawn_from(0))
    assert text == f"<|im_start|>user\n{demonstrations(1)[0]['prompt']}<|im_end|>\n<|im_start|>assistant\n"
    assert data.drawn_from(0) == data.prompt(0)
    off = irft_trainer(tmp_path, generation_template="### Instruction: {prompt}\n\n### Response: ")
    off_data = Demonstrations(off.train_dataset)
    assert tiny_tokenizer().decode(off_data.drawn_from(0)).startswith("### Instruction: What about the park 0?")
    assert off_data.prompt(0) == data.prompt(0)


def test_what_is_drawn_is_written_with_how(tmp_path: Path) -> None:
    trainer = irft_trainer(tmp_path, samples_per_prompt=2, rounds=1, temperature=0.9)
    trainer.train()
    header, *rows = read_jsonl(tmp_path / "negatives" / "round_00.jsonl")
    assert header["sampling"]["temperature"] == 0.9
    assert header["sampling"]["tempered"] is True
    assert "kept where it was drawn" in header["end_token"]
    assert [row["prompt_row"] for row in rows] == [k for k in range(6) for _ in range(2)]
    assert {row["finish_reason"] for row in rows} == {"stop", "length"}
    for row, pair in zip(rows, trainer.rounds.state.pairs, strict=True):  # type: ignore[union-attr]
        assert row["token_ids"] == pair.generated
        assert tiny_tokenizer().decode(pair.answer(), skip_special_tokens=True) == row["completion"]


def test_the_scoring_temperature_is_the_samplers(tmp_path: Path) -> None:
    trainer = irft_trainer(tmp_path, rounds=1, temperature=0.5)
    first_batch(trainer)
    assert trainer.rounds is not None
    pair, data = trainer.rounds.state.pairs[0], trainer.rounds.data
    ids = torch.tensor([data.prompt(0) + pair.answer()])
    logprobs = (trainer.model(ids).logits[0, :-1] / 0.5).log_softmax(-1)
    start = len(data.prompt(0))
    expected = logprobs[start - 1 :].gather(1, ids[0, start:, None]).sum()
    assert pair.reference_generated == pytest.approx(float(expected.detach()), rel=1e-5)


def test_per_step_at_probability_one_stays_at_the_reference(tmp_path: Path) -> None:
    """Every step draws from the policy of the moment: always on-policy, every loss is log 2."""
    trainer = irft_trainer(tmp_path, refresh="per_step", refresh_probability=1.0, rounds=1)
    trainer.train()
    assert logged(trainer, "loss") == pytest.approx([LOG2] * 4, abs=1e-6)
    assert not equal_parameters(trainer.model, tiny_model("llama", initializer_range=0.1))
    steps = [row.get("step") for row in read_jsonl(tmp_path / "negatives" / "round_00.jsonl")][1:]
    assert steps == [0] * 4 + [1] * 2 + [2] * 4 + [3] * 2


def test_per_step_at_probability_zero_draws_each_pair_once(tmp_path: Path) -> None:
    trainer = irft_trainer(tmp_path, refresh="per_step", refresh_probability=0.0, rounds=1)
    trainer.train()
    assert len((tmp_path / "negatives" / "round_00.jsonl").read_text().splitlines()) == 1 + 6
    losses = logged(trainer, "loss")
    assert losses[:2] == pytest.approx([LOG2] * 2, abs=1e-6)
    assert all(loss < LOG2 - 1e-3 for loss in losses[2:])


def test_adaptive_begins_a_round_when_the_policy_has_left(tmp_path: Path) -> None:
    common: dict[str, Any] = {"refresh": "adaptive", "adaptive_window": 1, "learning_rate": 1e-2, "rounds": 3}
    by_accuracy = irft_trainer(tmp_path / "a", adaptive_accuracy=0.9, adaptive_kl=1e9, **common)
    by_accuracy.train()
    rows = by_accuracy.state.log_history[:-1]
    for before, row in itertools.pairwise(rows):
        assert row["round"] == before["round"] + (before["accuracy"] > 0.9)
    assert rows[-1]["round"] >= 2
    by_kl = irft_trainer(tmp_path / "k", adaptive_accuracy=1.0, adaptive_kl=0.05, **common)
    by_kl.train()
    rows = by_kl.state.log_history[:-1]
    for before, row in itertools.pairwise(rows):
        assert row["round"] == before["round"] + (before["kl/generator"] > 0.05)
    assert rows[-1]["round"] >= 2
    never = irft_trainer(tmp_path / "n", adaptive_accuracy=1.0, adaptive_kl=1e9, **common)
    never.train()
    assert len(round_starts(never)) == 1
    assert len(logged(never, "loss")) == 12


def test_shards_are_disjoint_and_cover_the_data(tmp_path: Path) -> None:
    trainer = irft_trainer(tmp_path, rows=demonstrations(11), refresh="shards", rounds=3)
    assert trainer.rounds is not None
    shards = [trainer.rounds.schedule.refresh.prompts(k) for k in range(3)]
    assert [len(shard) for shard in shards] == [4, 4, 3]
    assert sorted(itertools.chain(*shards)) == list(range(11))
    assert trainer.args.max_steps == 6
    with pytest.raises(ConfigError, match="rounds=12 shards cannot be cut from 11"):
        irft_trainer(tmp_path, rows=demonstrations(11), refresh="shards", rounds=12)


def test_replay_mixes_in_what_earlier_rounds_drew(tmp_path: Path) -> None:
    trainer = irft_trainer(tmp_path, rounds=3, replay_rounds=1, steps_per_round=1, prompts_per_round=3)
    trainer.train()
    assert trainer.rounds is not None
    state = trainer.rounds.state
    assert (len(state.pairs), state.own, len(state.past)) == (6, 3, 1)
    drawn = [row["token_ids"] for row in read_jsonl(tmp_path / "negatives" / "round_01.jsonl")[1:]]
    assert [pair.generated for pair in state.pairs[3:]] == drawn
    assert all(math.isnan(pair.generator_logprob) for pair in state.pairs[3:])


def test_optimizer_and_schedule_begin_anew_or_run_through(tmp_path: Path) -> None:
    common: dict[str, Any] = {"lr_scheduler_type": "linear", "warmup_steps": 2, "learning_rate": 1e-3, "rounds": 2}
    restart = irft_trainer(tmp_path / "r", optimizer_per_round="restart", **common)
    restart.train()
    one_round = [0.0, 0.5e-3, 1e-3, 0.5e-3]
    assert logged(restart, "learning_rate") == pytest.approx(one_round * 2)
    carry = irft_trainer(tmp_path / "c", optimizer_per_round="carry", **common)
    carry.train()
    assert logged(carry, "learning_rate") == pytest.approx([0, 0.5e-3, *np.linspace(1e-3, 1e-3 / 6, 6)])
    counts = [{int(state["step"]) for state in t.optimizer.state.values()} for t in (restart, carry)]  # type: ignore[union-attr]
    assert counts == [{4}, {8}]


def test_evaluation_tells_held_out_demonstrations_from_fresh_answers(tmp_path: Path) -> None:
    rows = {"near": demonstrations(3), "far": demonstrations(5)}
    trainer = irft_trainer(tmp_path, eval_dataset=rows, eval_prompts=4, learning_rate=5e-3)
    before = trainer.evaluate()
    assert "eval_near_accuracy" not in before  # no round has begun
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_near_accuracy"] > 0.5
    assert after["eval_near_loss"] < before["eval_near_loss"]
    assert after["eval_near_perplexity"] == pytest.approx(math.exp(after["eval_near_loss"]))
    assert trainer.rounds is not None
    held = trainer.rounds.state.held_out
    assert {name: len(pairs) for name, pairs in held.items()} == {"near": 3, "far": 4}
    data = trainer.held_out_data["far"]
    ratios = [
        [
            float(plain_logprob(trainer.model, data.prompt(pair.prompt), answer).detach()) - reference
            for answer, reference in (
                (data.real(pair.prompt), pair.reference_real), (pair.answer(), pair.reference_generated)
            )
        ]
        for pair in held["far"]
    ]  # fmt: skip
    assert after["eval_far_accuracy"] == np.mean([real > generated for real, generated in ratios])
    assert after["eval_far_margin"] == pytest.approx(0.1 * np.mean([r - g for r, g in ratios]), rel=1e-3, abs=1e-5)


def test_the_sft_term_holds_the_demonstrations_up(tmp_path: Path) -> None:
    """d loss / d logp(real) gains exactly sft_coef, in sums or a token."""
    for normalize, name in ((False, "sum"), (True, "token")):
        losses = []
        for coefficient in (0.0, 0.25):
            trainer = irft_trainer(tmp_path / name, rounds=1, sft_coef=coefficient, normalize_length=normalize)
            (batch,), items = first_batch(trainer)
            losses.append(float(trainer.compute_loss(trainer.model, batch, num_items_in_batch=items).detach()))
        lengths = batch["completion_mask"][:4].sum(dim=1)
        sums = batch["reference_sums"][:4]
        nll = -(sums / lengths if normalize else sums).mean()
        assert losses[0] == pytest.approx(LOG2, abs=1e-6)
        assert losses[1] - losses[0] == pytest.approx(0.25 * float(nll), rel=1e-5)


def test_length_normalisation_divides_by_the_answers_tokens(tmp_path: Path) -> None:
    trainer = irft_trainer(tmp_path, rounds=1, normalize_length=True, loss_type="linear", beta=1.0)
    (batch,), items = first_batch(trainer)
    batch["reference_sums"] = batch["reference_sums"] - batch["completion_mask"].sum(dim=1) * torch.tensor(
        [2.0] * 4 + [0.5] * 4
    )
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=items)
    assert loss.item() == pytest.approx(-1.5, rel=1e-5)


def test_a_users_loss_trains(tmp_path: Path) -> None:
    trainer = irft_trainer(tmp_path, loss_type="tests.support.irft_loss:squared", rounds=1)
    trainer.train()
    assert logged(trainer, "loss")[0] == pytest.approx(1.0, abs=1e-6)
    assert logged(trainer, "loss")[-1] < 0.99


def test_the_merged_policy_is_a_plain_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    trainer = irft_trainer(tmp_path, peft_config=LORA, rounds=1, learning_rate=1e-2)
    trainer.train()
    trainer.save_policy(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    ids = torch.tensor([[1, 5, 9, 20]])
    torch.testing.assert_close(merged(ids).logits, trainer.model.eval()(ids).logits, rtol=1e-4, atol=1e-4)


def test_bad_settings_and_rows_are_named(tmp_path: Path) -> None:
    for changes, message in (
        ({"refresh": "fulll"}, "refresh must be one of"),
        ({"loss_type": "logistics"}, "did you mean 'logistic'"),
        ({"refresh": "none"}, "set rounds=1"),
        ({"refresh": "per_step", "replay_rounds": 1}, "replay_rounds must be 0"),
        ({"beta": 0.0}, "beta must be > 0"),
        ({"num_train_epochs": 2}, "set rounds and epochs_per_round"),
        ({"label_smoothing": 0.1, "loss_type": "hinge"}, "label_smoothing needs"),
        ({"offset": 0.5}, "offset must be 0"),
        ({"generation_template": "no place"}, "must contain {prompt}"),
        ({"epochs_per_round": 0.0}, "epochs_per_round must be > 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            irft_settings(tmp_path, **changes)
    with pytest.raises(ConfigError, match="leaves no room for a prompt within 128"):
        irft_trainer(tmp_path, max_completion_length=128)
    with pytest.raises(DataError, match=r"train_dataset, row 1: .*leaves no room for a drawn answer"):
        irft_trainer(tmp_path, max_length=40, max_completion_length=20)
    with pytest.raises(ConfigError, match="depends on more than the step"):
        irft_trainer(
            tmp_path, lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="steps", eval_dataset=demonstrations(2)
        ).train()
    assert list(tmp_path.glob("negatives/*")) == []


def test_the_preset_of_the_released_code(tmp_path: Path) -> None:
    args = IRFTConfig.released_code(tmp_path, use_cpu=True, rounds=2)
    assert (args.optim, args.learning_rate, args.beta, args.refresh) == ("rmsprop", 5e-7, 0.1, "shards")
    assert (args.epochs_per_round, args.optimizer_per_round, args.rounds) == (1.0, "restart", 2)
    assert args.sampling().is_greedy
    assert args.max_completion_length == 256
    assert args.get_warmup_steps(50) == 5
