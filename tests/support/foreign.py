"""verl and OpenRLHF as far as the adapters touch them: their recorded signatures, over loops written from their papers.

Where the real package can be imported the same tests run on it instead (`real_modules`); its GPU-only imports are
stood in for by empty modules.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

VERSIONS = {"verl": "0.9.1", "openrlhf": "0.11.2"}
_NEEDS = {"verl": ("ray", "tensordict", "omegaconf"), "openrlhf": ("ray", "pylatexenc")}


def is_installed(library: str) -> bool:
    """Whether the real package, of the recorded version, can be imported on this machine."""
    try:
        found = importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return False
    return found == VERSIONS[library] and all(importlib.util.find_spec(name) for name in _NEEDS[library])


class _GpuStubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules for what only exists beside a GPU and is imported but not called on a CPU."""

    names = ("deepspeed", "flash_attn", "ring_flash_attn", "vllm")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        is_stub = name.split(".")[0] in self.names and not name.startswith("flash_attn.ops")  # imported on trial
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_stub else None

    def create_module(self, spec: Any) -> Any:
        module = MagicMock(name=spec.name)
        module.__spec__, module.__path__, module.__name__ = spec, [], spec.name
        return module

    def exec_module(self, module: Any) -> None:
        return None


def import_real(library: str) -> None:
    """Import the modules of the real package that the adapters touch."""
    stubs = _GpuStubs() if library == "openrlhf" else None
    if stubs is not None:
        sys.meta_path.insert(0, stubs)
    try:
        names = {
            "verl": ("verl.trainer.ppo.core_algos", "verl.utils.experimental.torch_functional"),
            "openrlhf": ("openrlhf.models.actor", "openrlhf.trainer.ppo_utils.experience_maker"),
        }
        for name in names[library]:
            importlib.import_module(name)
    finally:
        if stubs is not None:
            sys.meta_path.remove(stubs)


def fake_modules(library: str) -> dict[str, ModuleType]:
    """`sys.modules` entries of a package with the recorded signatures."""
    made = {"verl": _fake_verl, "openrlhf": _fake_openrlhf}[library]()
    for name in list(made):
        while "." in name:
            name = name.rpartition(".")[0]
            made.setdefault(name, ModuleType(name))
    for name, module in made.items():
        module.__path__ = []
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(made[parent], last, module)
    return made


def _module(name: str, **members: Any) -> tuple[str, ModuleType]:
    module = ModuleType(name)
    vars(module).update(members)
    return name, module


# ---- the references -------------------------------------------------------------------------------------------------
def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum() / mask.sum()


def head_statistics(hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of the labels and entropy, from full logits."""
    logprobs = torch.log_softmax((hidden @ weight.t()).float() / temperature, dim=-1)
    return logprobs.gather(-1, labels[..., None])[..., 0], -(logprobs.exp() * logprobs).sum(-1)


def carried_gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """arXiv 1506.02438, where a masked token hands on what comes after it; un-whitened advantages and returns."""
    advantages = torch.zeros_like(values)
    for row in range(len(values)):
        value_after, advantage_after = torch.zeros(()), torch.zeros(())
        for t in reversed(range(values.shape[1])):
            if mask[row, t]:
                delta = rewards[row, t] + gamma * value_after - values[row, t]
                advantage_after = delta + gamma * lam * advantage_after
                value_after = values[row, t]
            advantages[row, t] = advantage_after
    return advantages, advantages + values


def ppo_loss(
    logprob: Tensor, old: Tensor, advantages: Tensor, low: float, high: float, dual: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Token losses, where the clip decided, and where the dual clip did."""
    ratio = (logprob - old).clamp(-20, 20).exp()
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high)
    loss = torch.maximum(plain, clipped)
    bound = torch.full_like(loss, torch.inf) if dual is None else -advantages * dual
    bounded = torch.where(advantages < 0, torch.minimum(loss, bound), loss)
    return bounded, (clipped > plain).float(), ((loss > bound) & (advantages < 0)).float()


# ---- verl -----------------------------------------------------------------------------------------------------------
def _fake_verl() -> dict[str, ModuleType]:
    class FusedLinearForPPO(nn.Module):
        def forward(
            self, hidden_states: Any, vocab_weights: Any, input_ids: Any, temperature: float = 1.0
        ) -> tuple[Tensor, Tensor]:
            return head_statistics(hidden_states, vocab_weights, input_ids, temperature)

    def linear_cross_entropy(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        hidden, weight, labels, temperature = args[:4]
        logprobs, entropy = head_statistics(hidden, weight, labels, temperature)
        return logprobs.flatten(), entropy.flatten()

    def logprobs_from_logits(logits: Any, labels: Any, inplace_backward: bool = True) -> Tensor:
        return torch.log_softmax(logits.float(), dim=-1).gather(-1, labels[..., None])[..., 0]

    def compute_gae_advantage_return(
        token_level_rewards: Any, values: Any, response_mask: Any, gamma: Any, lam: Any
    ) -> tuple[Tensor, Tensor]:
        advantages, returns = carried_gae(token_level_rewards, values, response_mask, gamma, lam)
        mean = masked_mean(advantages, response_mask)
        variance = ((advantages - mean).square() * response_mask).sum() / (response_mask.sum() - 1)
        return (advantages - mean) * torch.rsqrt(variance + 1e-8), returns

    def agg_loss(
        loss_mat: Any, loss_mask: Any, loss_agg_mode: Any, dp_size: int = 1, batch_num_tokens: Any = None,
        global_batch_size: Any = None, loss_scale_factor: Any = None,
    ) -> Tensor:  # fmt: skip
        tokens = loss_mask.sum(-1)
        sums, rows = (
            (loss_mat * loss_mask).sum(-1),
            (tokens > 0).sum() if global_batch_size is None else global_batch_size,
        )
        match loss_agg_mode:
            case "token-mean":
                return sums.sum() / (tokens.sum() if batch_num_tokens is None else batch_num_tokens) * dp_size
            case "token-sum":
                return sums.sum() * dp_size
            case "seq-mean-token-sum":
                return sums.sum() / rows * dp_size
            case "seq-mean-token-sum-norm":
                return sums.sum() / rows * dp_size / (loss_scale_factor or loss_mask.shape[-1])
        return (sums / (tokens + 1e-8)).sum() / rows * dp_size

    def vanilla(
        old_log_prob: Any, log_prob: Any, advantages: Any, response_mask: Any, loss_agg_mode: str = "token-mean",
        config: Any = None, rollout_is_weights: Any = None,
    ) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
        low, high = (config.clip_ratio if x is None else x for x in (config.clip_ratio_low, config.clip_ratio_high))
        loss, clipped, bounded = ppo_loss(
            log_prob, old_log_prob, advantages, low, high, config.get("clip_ratio_c", 3.0)
        )
        weights = 1.0 if rollout_is_weights is None else rollout_is_weights
        kl = (old_log_prob - log_prob).clamp(-20, 20)
        metrics = {"pg_clipfrac": clipped, "ppo_kl": kl, "pg_clipfrac_lower": bounded}
        total = agg_loss(loss * weights, response_mask, loss_agg_mode, **config.global_batch_info)
        return total, {f"actor/{k}": masked_mean(v, response_mask).item() for k, v in metrics.items()}

    return dict(
        [
            _module(
                "verl.trainer.ppo.core_algos",
                compute_gae_advantage_return=compute_gae_advantage_return,
                agg_loss=agg_loss,
                compute_policy_loss_vanilla=vanilla,
                ADV_ESTIMATOR_REGISTRY={"gae": compute_gae_advantage_return},
                POLICY_LOSS_REGISTRY={"vanilla": vanilla},
            ),
            _module("verl.utils.experimental.torch_functional", FusedLinearForPPO=FusedLinearForPPO),
            _module("verl.utils.kernel.linear_cross_entropy", linear_cross_entropy=linear_cross_entropy),
            _module("verl.utils.torch_functional", logprobs_from_logits=logprobs_from_logits),
            # a module that took the function by name before the patch
            _module("verl.workers.engine.fsdp.transformer_impl", logprobs_from_logits=logprobs_from_logits),
        ]
    )


# ---- OpenRLHF -------------------------------------------------------------------------------------------------------
def _fake_openrlhf() -> dict[str, ModuleType]:
    def log_probs_from_logits(logits: Any, labels: Any, temperature: float = 1.0) -> Tensor:
        return torch.log_softmax(logits / temperature, dim=-1).gather(-1, labels[..., None])[..., 0]

    def compute_entropy(logits: Any) -> Tensor:
        logprobs = torch.log_softmax(logits, dim=-1)
        return -(logprobs.exp() * logprobs).sum(-1)

    class Actor(nn.Module):
        def __init__(self, pretrain_or_model: Any, temperature: float = 1.0) -> None:
            super().__init__()
            self.model, self.temperature = pretrain_or_model, temperature

        def forward(
            self, sequences: Any, action_mask: Any = None, attention_mask: Any = None, return_output: bool = False,
            allgather_logits: bool = False, return_logprobs: bool = False, ring_attn_group: Any = None,
            packed_seq_lens: Any = None, return_entropy: bool = False, **mm_inputs: Any,
        ) -> Any:  # fmt: skip
            positions = (attention_mask.long().cumsum(-1) - 1).masked_fill(attention_mask == 0, 1)
            output = self.model(sequences, attention_mask=attention_mask, position_ids=positions)
            output["logits"] = output["logits"].float() / self.temperature
            if return_entropy:
                output.entropy = compute_entropy(output["logits"])[:, :-1]
            if action_mask is None and not return_logprobs:
                return output
            logprobs = log_probs_from_logits(output["logits"], sequences.roll(-1, 1))[:, :-1]
            if action_mask is not None:
                logprobs = logprobs[:, -action_mask.shape[1] :] * action_mask.float()
            return (logprobs, output) if return_output else logprobs

    def aggregate_loss(
        loss: Any, loss_mask: Any, token_level_loss: bool = True, dp_size: int = 1, batch_num_tokens: Any = None,
        global_batch_size: Any = None,
    ) -> Tensor:  # fmt: skip
        if token_level_loss:
            tokens = loss_mask.sum() if batch_num_tokens is None else batch_num_tokens
            return (loss * loss_mask).sum() / tokens * (1 if batch_num_tokens is None else dp_size)
        counts = loss_mask.sum(-1)
        means = (loss * loss_mask).sum(-1) / (counts + 1e-8)
        rows = (counts > 0).sum() if global_batch_size is None else global_batch_size
        return means.sum() / rows * (1 if global_batch_size is None else dp_size)

    class PolicyLoss(nn.Module):
        def __init__(
            self, clip_eps_low: float = 0.2, clip_eps_high: float = 0.2, dual_clip: Any = None,
            token_level_loss: bool = True, policy_loss_type: str = "ppo", is_correction_level: str = "off",
        ) -> None:  # fmt: skip
            super().__init__()
            vars(self).update({k: v for k, v in locals().items() if k not in ("self", "__class__")})

        def forward(
            self, log_probs: Any, old_log_probs: Any, advantages: Any, action_mask: Any = None,
            rollout_log_probs: Any = None, dp_size: int = 1, batch_num_tokens: Any = None,
            global_batch_size: Any = None,
        ) -> Any:  # fmt: skip
            settings: Any = self
            loss, clipped, _ = ppo_loss(
                log_probs, old_log_probs, advantages, settings.clip_eps_low, settings.clip_eps_high, settings.dual_clip
            )
            total = aggregate_loss(
                loss, action_mask, settings.token_level_loss, dp_size, batch_num_tokens, global_batch_size
            )
            kl = masked_mean((old_log_probs - log_probs).detach(), action_mask)
            return total, masked_mean(clipped, action_mask), kl, None, None

    class RemoteExperienceMaker:
        def get_advantages_and_returns(
            self, values: Any, rewards: Any, action_mask: Any, gamma: float, lambd: float
        ) -> tuple[Tensor, Tensor]:
            return carried_gae(rewards * action_mask, values * action_mask, torch.ones_like(values), gamma, lambd)

    functions = {"log_probs_from_logits": log_probs_from_logits, "compute_entropy": compute_entropy}
    return dict(
        [
            _module("openrlhf.models.utils", **functions),
            _module("openrlhf.models.actor", Actor=Actor, **functions),
            _module("openrlhf.models.loss", PolicyLoss=PolicyLoss, aggregate_loss=aggregate_loss),
            _module("openrlhf.trainer.ppo_utils.experience_maker", RemoteExperienceMaker=RemoteExperienceMaker),
        ]
    )


def actor_config(**changes: Any) -> Any:
    """The fields of verl's `ActorConfig` that its vanilla loss reads, with attribute and `get` access."""
    values = {"clip_ratio": 0.2, "clip_ratio_low": None, "clip_ratio_high": None, "global_batch_info": {}, **changes}
    return SimpleNamespace(**values, get=lambda name, default=None: values.get(name, default))
