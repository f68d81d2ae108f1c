"""What stands between an op and other people's programs: export, checkpointing, torch.func, vmap, autocast, ranks.

torch.compile and opcheck of each op are in the op's own file; here are the transformations that all of them share.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

import rlsft_kernels as ops

Function = Callable[..., Tensor]


def tokens(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TARGETS = torch.tensor([1, 5, -100, 0, 8, 3])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]]).bool()
HEAD = (tokens(6, 4, seed=1), tokens(9, 4, seed=2))
PER_TOKEN = (tokens(3, 4, seed=3), tokens(3, 4, seed=4))
VALUES = tokens(2, 3, seed=7)
PAIRS = (tokens(5, seed=5), tokens(5, seed=6))


def _pair_of_sequences(hidden: Tensor, weight: Tensor) -> Tensor:
    targets = torch.tensor([[1, 5, 2], [0, 8, 3]])
    reference = torch.zeros(2)
    mask = torch.ones(2, 3, dtype=torch.bool)
    return ops.linear_pair_loss(hidden.reshape(2, 3, 4), weight, targets, mask, reference, beta=0.1)[0]


def _chain(hidden: Tensor, weight: Tensor) -> Tensor:
    targets, mask = torch.tensor([[1, 5, 2], [0, 8, 3]]), torch.ones(2, 3, dtype=torch.bool)
    return ops.ppo_chain(
        hidden.reshape(2, 3, 4), None, weight, targets, torch.tensor([1.0, -1.0]), VALUES, mask,
        old_logprobs=torch.full((2, 3), -2.0),
    )[0]  # fmt: skip


# op -> a function of two tensors that is differentiable in both, and the tensors
CASES: dict[str, tuple[Function, tuple[Tensor, Tensor]]] = {
    "linear_logprob": (lambda h, w: _scored(h, w), HEAD),
    "linear_cross_entropy": (lambda h, w: ops.linear_cross_entropy(h, w, TARGETS)[0], HEAD),
    "linear_policy_loss": (
        lambda h, w: ops.linear_policy_loss(h, w, TARGETS.clamp(min=0), torch.ones(6), torch.full((6,), -2.0))[0],
        HEAD,
    ),
    "linear_pair_loss": (_pair_of_sequences, HEAD),
    "ppo_chain": (_chain, HEAD),
    "logprob_from_logits": (lambda h, w: ops.logprob_from_logits(h @ w.t(), TARGETS).logprob.sum(), HEAD),
    "policy_value_loss": (
        lambda new, values: ops.policy_value_loss(
            new, PER_TOKEN[0] + 0.1, PER_TOKEN[1], values, PER_TOKEN[1], PER_TOKEN[0], MASK
        )[0],
        PER_TOKEN,
    ),
    "pair_loss": (lambda real, made: ops.pair_loss(real, made, beta=0.1)[0], PAIRS),
    "pairwise_reward_loss": (lambda chosen, rejected: ops.pairwise_reward_loss(chosen, rejected)[0], PAIRS),
}  # fmt: skip
HEAD_OPS = [name for name, (_, inputs) in CASES.items() if inputs is HEAD]


def _scored(hidden: Tensor, weight: Tensor) -> Tensor:
    out = ops.linear_logprob(hidden, weight, TARGETS, temperature=0.7, outputs=("logprob", "entropy"))
    return out.logprob.sum() + 0.1 * out.entropy.sum()


def leaves(name: str) -> tuple[Function, tuple[Tensor, ...]]:
    function, inputs = CASES[name]
    return function, tuple(x.clone().requires_grad_() for x in inputs)


def plain(name: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Value and gradients of an ordinary call."""
    function, inputs = leaves(name)
    value = function(*inputs)
    return value.detach(), torch.autograd.grad(value, inputs)


@pytest.mark.parametrize("name", CASES)
def test_export_gives_a_program_with_the_same_numbers(name: str) -> None:
    function, inputs = CASES[name]

    class Program(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return function(first, second)

    exported = torch.export.export(Program(), inputs)
    called = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert any(target.startswith("rlsft.") for target in called), "the op was traced through, not recorded"
    torch.testing.assert_close(exported.module()(*inputs), plain(name)[0])


@pytest.mark.parametrize("name", CASES)
def test_activation_checkpointing(name: str) -> None:
    function, inputs = leaves(name)
    value = checkpoint(function, *inputs, use_reentrant=False)
    torch.testing.assert_close((value.detach(), torch.autograd.grad(value, inputs)), plain(name))


@pytest.mark.parametrize("name", CASES)
def test_functional_call_under_autograd(name: str) -> None:
    """`torch.func.functional_call` swaps parameters, which is what trainers use it for; gradients flow to them."""
    function, inputs = leaves(name)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Parameter(torch.zeros_like(inputs[1]))

        def forward(self, first: Tensor) -> Tensor:
            return function(first, self.second)

    value = torch.func.functional_call(Layer(), {"second": inputs[1]}, (inputs[0],))
    torch.testing.assert_close((value.detach(), torch.autograd.grad(value, inputs)), plain(name))


@pytest.mark.parametrize("name", CASES)
def test_vmap_gives_the_numbers_of_the_loop(name: str) -> None:
    function, inputs = CASES[name]
    other = tuple(-x for x in inputs)
    together = torch.func.vmap(function)(*(torch.stack(both) for both in zip(inputs, other, strict=True)))
    torch.testing.assert_close(together, torch.stack((function(*inputs), function(*other))))


@pytest.mark.parametrize("name", CASES)
def test_functional_derivatives_are_refused(name: str) -> None:
    """torch.func cannot differentiate a custom op; it must say so, and a tangent must not be dropped for zeros."""
    function, inputs = CASES[name]
    with pytest.raises(RuntimeError, match=r"autograd\.Function with functorch transforms"):
        torch.func.grad(function, argnums=(0, 1))(*inputs)
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(function, inputs, tuple(torch.ones_like(x) for x in inputs))


@pytest.mark.parametrize("name", CASES)
def test_a_tangent_is_refused_and_not_dropped(name: str) -> None:
    function, inputs = CASES[name]
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="no forward-mode derivative"):
        function(*(forward_ad.make_dual(x, torch.ones_like(x)) for x in inputs))
    with forward_ad.dual_level():
        function(*inputs)  # nothing to drop


@pytest.mark.parametrize("name", HEAD_OPS)
def test_autocast_runs_the_product_in_bfloat16_and_the_rest_in_float32(name: str) -> None:
    function, inputs = leaves(name)
    with torch.autocast("cpu", torch.bfloat16):
        value = function(*inputs)
    gradients = torch.autograd.grad(value, inputs)
    assert value.dtype == torch.float32
    assert all(g.dtype == torch.float32 for g in gradients)
    expected, expected_gradients = plain(name)
    torch.testing.assert_close(value.detach(), expected, atol=0.05, rtol=0.03)
    assert not torch.equal(value.detach(), expected), "autocast was ignored"
    for a, b in zip(gradients, expected_gradients, strict=True):
        assert ((a - b).norm() / b.norm()).item() < 0.05


@pytest.mark.parametrize("name", sorted(set(CASES) - set(HEAD_OPS)))
def test_autocast_leaves_losses_of_token_statistics_alone(name: str) -> None:
    function, inputs = leaves(name)
    with torch.autocast("cpu", torch.bfloat16):
        value = function(*inputs)
    torch.testing.assert_close((value.detach(), torch.autograd.grad(value, inputs)), plain(name), atol=0, rtol=0)


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_opcheck_of_the_backward_ops(backend: str) -> None:
    """The forward ops are checked in their own files; these two are called by their autograd only."""
    seen: dict[str, tuple[Any, ...]] = {}

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if str(func).startswith("rlsft.") and "backward" in str(func):
                seen[str(func)] = args
            return func(*args, **(kwargs or {}))

    hidden, weight = (x.clone().requires_grad_() for x in HEAD)
    with Recorder():
        ops.linear_logprob(hidden, weight, TARGETS, backend=backend).logprob.sum().backward()  # type: ignore[arg-type]
        ops.logprob_from_logits(hidden @ weight.t(), TARGETS, backend=backend).logprob.sum().backward()  # type: ignore[arg-type]
    assert len(seen) == 2
    for name, arguments in seen.items():
        detached = tuple(x.detach() if isinstance(x, Tensor) else x for x in arguments)
        # a backward is not differentiated itself: its refusal has tests of its own
        op = getattr(torch.ops.rlsft, name.split(".")[1]).default
        torch.library.opcheck(op, detached, test_utils=("test_schema", "test_faketensor"))


class HeadLoss(nn.Module):
    """A trunk and a head whose forward is a fused loss, as engines of data parallelism wrap it."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Linear(4, 4), nn.Linear(4, 9, bias=False)
        generator = torch.Generator().manual_seed(0)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.trunk(x)
        loss, _ = ops.linear_cross_entropy(hidden, self.head.weight, TARGETS)
        return loss + _scored(hidden, self.head.weight)


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_data_parallel_engines(engine: str, tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        expected = HeadLoss()
        expected(HEAD[0]).backward()
        model: Any = HeadLoss()
        if engine == "ddp":
            model = nn.parallel.DistributedDataParallel(model)
        else:
            fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        for _ in range(2):
            model.zero_grad()
            model(HEAD[0]).backward()
        for a, b in zip(model.parameters(), expected.parameters(), strict=True):
            gradient = a.grad.full_tensor() if isinstance(a.grad, DTensor) else a.grad
            torch.testing.assert_close(gradient, b.grad)
    finally:
        dist.destroy_process_group()
