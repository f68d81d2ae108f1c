"""The trainers of the bench: ours, TRL's, and plain loops; each is `(sizes, dtype, folder) -> Timeline`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import TrainerCallback

from bench.training.inputs import Sizes, model_of, pairs, texts, token_rows, tokenizer_of

CLIP = 0.2
VF_COEF = 0.1
LEARNING_RATE = 1e-5


@dataclass
class Timeline:
    """When a training began, when each of its steps ended, by the clock and in CPU seconds, and the losses."""

    began: float = 0.0
    ended: list[float] = field(default_factory=list)
    ended_cpu: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


Job = Callable[[Sizes, torch.dtype, str], Timeline]


class Clock(TrainerCallback):
    """Notes the end of every step and every logged loss."""

    def __init__(self) -> None:
        self.timeline = Timeline()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.timeline.ended.append(time.perf_counter())
        self.timeline.ended_cpu.append(time.process_time())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.timeline.losses.append(float(logs["loss"]))


def timed(trainer: Any, clock: Clock) -> Timeline:
    """Train; what happens before the first step (a reference that is scored ahead) counts."""
    clock.timeline.began = time.perf_counter()
    trainer.train()
    return clock.timeline


def common(sizes: Sizes, **changes: Any) -> dict[str, Any]:
    """Settings that TRL and we share."""
    return {
        "per_device_train_batch_size": sizes.batch, "max_steps": sizes.steps, "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant", "optim": "adamw_torch_fused", "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "use_cpu": True, "seed": 0, "max_length": sizes.length, "gradient_checkpointing": False,
        "dataloader_pin_memory": False, **changes,
    }  # fmt: skip


# ---- supervised fine-tuning ----------------------------------------------------------------------------------------
def sft_ours(sizes: Sizes, dtype: torch.dtype, folder: str) -> Timeline:
    from rlsft import SFTConfig, SFTTrainer

    clock = Clock()
    args = SFTConfig(folder, **common(sizes, completion_only_loss=False, show_progress=False))
    return timed(
        SFTTrainer(model_of(sizes, dtype), args, texts(sizes), processing_class=tokenizer_of(sizes), callbacks=[clock]),
        clock,
    )


def sft_trl(sizes: Sizes, dtype: torch.dtype, folder: str, **changes: Any) -> Timeline:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    clock = Clock()
    args = SFTConfig(folder, bf16=False, disable_tqdm=True, **common(sizes, **changes))
    return timed(
        SFTTrainer(
            model_of(sizes, dtype),
            args,
            train_dataset=Dataset.from_list(texts(sizes)),
            processing_class=tokenizer_of(sizes),
            callbacks=[clock],
        ),
        clock,
    )


def sft_plain(sizes: Sizes, dtype: torch.dtype, folder: str) -> Timeline:
    """Full logits and transformers' own loss in the shortest loop there is."""
    model = model_of(sizes, dtype)
    tokenizer = tokenizer_of(sizes)
    rows = [tokenizer(row["text"])["input_ids"] + [tokenizer.eos_token_id] for row in texts(sizes)]
    batches = torch.tensor(rows).split(sizes.batch)
    return plain_loop(model, lambda step: model(input_ids=batches[step], labels=batches[step]).loss, sizes)


def plain_loop(model: nn.Module, loss_of: Callable[[int], Tensor], sizes: Sizes) -> Timeline:
    """AdamW on `loss_of(step)`, gradients clipped at 1 as the trainers do."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    model.train()
    timeline = Timeline(time.perf_counter())
    for step in range(sizes.steps):
        loss = loss_of(step)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        timeline.losses.append(float(loss))
        timeline.ended.append(time.perf_counter())
    return timeline


# ---- pairs: IRFT on given pairs is DPO -----------------------------------------------------------------------------
def pairs_ours(sizes: Sizes, dtype: torch.dtype, folder: str, **changes: Any) -> Timeline:
    from rlsft import IRFTConfig, IRFTTrainer

    clock = Clock()
    dpo = {"refresh": "none", "rounds": 1, "epochs_per_round": 1, "beta": 0.1, "show_progress": False}
    args = IRFTConfig(folder, **common(sizes, **dpo, **changes))
    return timed(
        IRFTTrainer(
            model_of(sizes, dtype), args, pairs(sizes), processing_class=tokenizer_of(sizes), callbacks=[clock]
        ),
        clock,
    )


def pairs_trl(sizes: Sizes, dtype: torch.dtype, folder: str, **changes: Any) -> Timeline:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    clock = Clock()
    args = DPOConfig(folder, bf16=False, disable_tqdm=True, beta=0.1, **common(sizes, **changes))
    trainer = DPOTrainer(
        model_of(sizes, dtype), ref_model=model_of(sizes, dtype), args=args,
        train_dataset=Dataset.from_list(pairs(sizes)),
        processing_class=tokenizer_of(sizes), callbacks=[clock],
    )  # fmt: skip
    return timed(trainer, clock)


# ---- one PPO update and the scoring of a rollout -------------------------------------------------------------------
@dataclass(frozen=True)
class Rollout:
    """Answers with everything that an update knows of them; half of every row is prompt."""

    ids: Tensor  # [B, T]
    mask: Tensor  # [B, T] bool: the answer's tokens
    old_logprobs: Tensor  # [B, Tc]
    advantages: Tensor
    values: Tensor
    returns: Tensor

    @classmethod
    def of(cls, sizes: Sizes) -> Rollout:
        ids = token_rows(sizes)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        mask[:, sizes.prompt :] = True
        generator = torch.Generator().manual_seed(1)
        shape = (sizes.batch, sizes.length - sizes.prompt)
        noise = [torch.randn(shape, generator=generator) for _ in range(3)]
        # an untrained model gives every token about 1 / V
        old = torch.full(shape, -torch.tensor(float(sizes.vocabulary)).log().item())
        return cls(ids, mask, old, noise[0], noise[1], noise[2])


def policy_parts(sizes: Sizes, dtype: torch.dtype) -> Any:
    """Our policy with a value head on its hidden states."""
    from rlsft.trainers.ppo.actor_critic import ActorCritic
    from rlsft.trainers.ppo.value import ValueModel

    policy = model_of(sizes, dtype)
    return ActorCritic(policy, ValueModel.shared_with(policy), 128 * 2**20)


def ppo_ours(sizes: Sizes, dtype: torch.dtype, folder: str) -> Timeline:
    from rlsft_kernels import policy_value_loss

    parts, rollout = policy_parts(sizes, dtype), Rollout.of(sizes)
    attention = torch.ones_like(rollout.mask)

    def loss_of(_step: int) -> Tensor:
        out = parts(rollout.ids, attention, rollout.mask, sizes.prompt, 1.0)
        return policy_value_loss(
            out.logprobs, rollout.old_logprobs, rollout.advantages, out.values, rollout.values, rollout.returns,
            rollout.mask[:, sizes.prompt :], entropy=out.entropy, clip_low=CLIP, clip_high=CLIP, vf_coef=VF_COEF,
        )[0]  # fmt: skip

    return plain_loop(parts, loss_of, sizes)


def ppo_plain(sizes: Sizes, dtype: torch.dtype, folder: str) -> Timeline:
    """The update with full logits of the answers, as PPO trainers write it."""
    policy, rollout = model_of(sizes, dtype), Rollout.of(sizes)
    head = nn.Linear(sizes.hidden, 1, dtype=torch.float32)
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    both = nn.ModuleList([policy, head])

    def loss_of(_step: int) -> Tensor:
        logprobs, _, values = full_logits(policy, rollout, sizes, head)
        ratio = (logprobs - rollout.old_logprobs).exp()
        advantages, old = rollout.advantages, rollout.values
        policy_loss = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
        clipped = old + (values - old).clamp(-CLIP, CLIP)
        errors = torch.max((values - rollout.returns).square(), (clipped - rollout.returns).square())
        return policy_loss + VF_COEF * 0.5 * errors.mean()

    return plain_loop(both, loss_of, sizes)


def full_logits(
    policy: Any, rollout: Rollout, sizes: Sizes, head: nn.Module | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(log-probabilities, entropy, values) `[B, Tc]` of the answers, from their logits in float32."""
    output = policy.model(input_ids=rollout.ids, use_cache=False)
    hidden = output[0][:, sizes.prompt - 1 : -1]
    logp = F.log_softmax(policy.lm_head(hidden).float(), dim=-1)
    chosen = logp.gather(-1, rollout.ids[:, sizes.prompt :, None])[..., 0]
    entropy = -(logp.exp() * logp).sum(dim=-1)
    values = head(hidden.float())[..., 0] if head is not None else torch.zeros_like(chosen)
    return chosen, entropy, values


@torch.no_grad()
def scoring_ours(sizes: Sizes, dtype: torch.dtype, folder: str) -> Timeline:
    parts, rollout = policy_parts(sizes, dtype).eval(), Rollout.of(sizes)
    attention = torch.ones_like(rollout.mask)
    return scored(lambda: parts(rollout.ids, attention, rollout.mask, sizes.prompt, 1.0)[:2], sizes)


@torch.no_grad()
def scoring_plain(sizes: Sizes, dtype: torch.dtype, folder: str) -> Timeline:
    policy, rollout = model_of(sizes, dtype).eval(), Rollout.of(sizes)
    return scored(lambda: full_logits(policy, rollout, sizes)[:2], sizes)


def scored(score: Callable[[], tuple[Tensor, Tensor]], sizes: Sizes) -> Timeline:
    """Log-probabilities and entropies of the same answers, again and again."""
    timeline = Timeline(time.perf_counter())
    for _ in range(sizes.steps):
        logprobs, entropy = score()
        timeline.losses.append(float((entropy - logprobs).mean()))
        timeline.ended.append(time.perf_counter())
    return timeline


# job -> provider -> how; the first is ours, the last the plain loop that ratios compare with where there is one
JOBS: dict[str, dict[str, Job]] = {
    "sft": {
        "rlsft SFTTrainer": sft_ours,
        "TRL SFTTrainer": sft_trl,
        "TRL SFTTrainer, its defaults": partial(sft_trl, gradient_checkpointing=True),
        "plain loop, full logits": sft_plain,
    },
    "pairs": {
        "rlsft IRFTTrainer": pairs_ours,
        "rlsft IRFTTrainer, checkpointing": partial(pairs_ours, gradient_checkpointing=True),
        "TRL DPOTrainer": pairs_trl,
        "TRL DPOTrainer, its defaults": partial(pairs_trl, gradient_checkpointing=True),
        "TRL DPOTrainer, reference ahead": partial(pairs_trl, precompute_ref_log_probs=True),
    },
    "ppo_update": {"rlsft": ppo_ours, "plain loop, full logits": ppo_plain},
    "scoring": {"rlsft": scoring_ours, "plain loop, full logits": scoring_plain},
}
PACKAGES = {"TRL": "trl"}
