"""The adapters of verl and OpenRLHF against recorded contracts, and against the real packages where they import."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft.errors import RunError
from rlsft.integrations import openrlhf, verl
from tests.support import foreign
from tests.support.families import family_model

ADAPTERS: dict[str, Any] = {"verl": verl, "openrlhf": openrlhf}
RECORDED = json.loads(Path(__file__).with_name("signatures.json").read_text())
PACKAGES = [
    pytest.param(
        source,
        library,
        marks=pytest.mark.skipif(
            source == "real" and not foreign.is_installed(library), reason=f"{library} is not installed here"
        ),
    )
    for library in ADAPTERS
    for source in ("recorded", "real")
]


def provide(source: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `library` importable: the real one, or the one with the recorded signatures."""
    if source == "real":
        foreign.import_real(library)
        return
    for name in [key for key in sys.modules if key.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    for name, module in foreign.fake_modules(library).items():
        monkeypatch.setitem(sys.modules, name, module)
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: foreign.VERSIONS[name] if name == library else real(name)
    )


@pytest.fixture(autouse=True)
def _unpatched() -> Iterator[None]:
    yield
    for adapter in ADAPTERS.values():
        adapter.unpatch()


def part(path: str) -> Any:
    """`module:Class.name` of the library as it is now."""
    module, _, name = path.partition(":")
    value = importlib.import_module(module)
    for attribute in name.split("."):
        value = getattr(value, attribute)
    return value


def both_ways(library: str, use: Any) -> tuple[Any, Any]:
    """`use()` on the library itself and on the patched one."""
    before = use()
    with ADAPTERS[library].patched():
        return before, use()


def tensors(holes: bool = False) -> dict[str, Tensor]:
    """Token statistics of four answers, one of a single token and one of none; `mask` as float, as both pass it."""
    generator = torch.Generator().manual_seed(0)
    names = ("old", "new", "advantages", "values", "rewards")
    tokens = {name: torch.randn(4, 9, generator=generator) for name in names}
    mask = torch.arange(9)[None] < torch.tensor([[9], [7], [1], [0]])
    if holes:
        mask[0, 2:4] = False
    return {**tokens, "mask": mask.float()}


@pytest.mark.parametrize("library", ADAPTERS)
def test_hooks_are_what_was_recorded(library: str) -> None:
    hooks = {f"{hook.module}:{hook.name}": list(hook.parameters) for hook in ADAPTERS[library].HOOKS}
    assert RECORDED[library]["version"] == foreign.VERSIONS[library]
    assert hooks == RECORDED[library]["signatures"]


@pytest.mark.parametrize(("source", "library"), PACKAGES)
def test_patching_is_said_and_undone(
    source: str, library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    provide(source, library, monkeypatch)
    paths = list(RECORDED[library]["signatures"])
    for path, parameters in RECORDED[library]["signatures"].items():
        assert list(inspect.signature(part(path)).parameters) == parameters, path
    before = [part(path) for path in paths]
    adapter = ADAPTERS[library]
    adapter.patch()
    adapter.patch()  # the second time does nothing
    assert all(part(path) is not original for path, original in zip(paths, before, strict=True))
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[rlsft]")]
    assert len(said) == 1
    assert "experimental" in said[0]
    adapter.unpatch()
    assert all(part(path) == original for path, original in zip(paths, before, strict=True))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("version", r"written for verl>=0.9.1,<0.10, got 0.10.0: nothing is replaced"),
        ("signature", r"compute_gae_advantage_return must take .*got \(rewards\)"),
        ("missing", r"linear_cross_entropy must take .*no such function"),
        ("not installed", "verl is not installed here"),
    ],
)
def test_another_build_is_refused_and_left_alone(spoil: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provide("recorded", "verl", monkeypatch)
    algorithms: Any = sys.modules["verl.trainer.ppo.core_algos"]
    match spoil:
        case "version":
            monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.10.0")
        case "signature":
            algorithms.compute_gae_advantage_return = lambda rewards: rewards
        case "missing":
            del sys.modules["verl.utils.kernel.linear_cross_entropy"].linear_cross_entropy  # type: ignore[attr-defined]
        case "not installed":

            def missing(name: str) -> str:
                raise importlib.metadata.PackageNotFoundError(name)

            monkeypatch.setattr(importlib.metadata, "version", missing)
    before = part("verl.utils.experimental.torch_functional:FusedLinearForPPO.forward")
    with pytest.raises(RunError, match=message):
        verl.patch()
    assert part("verl.utils.experimental.torch_functional:FusedLinearForPPO.forward") is before
    assert "rlsft_ppo" not in algorithms.POLICY_LOSS_REGISTRY


VERL = [p for p in PACKAGES if p.values[1] == "verl"]
OPENRLHF = [p for p in PACKAGES if p.values[1] == "openrlhf"]


@pytest.mark.parametrize(("source", "library"), VERL)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_verl_fused_head(source: str, library: str, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(source, library, monkeypatch)
    hidden, weight = torch.randn(2, 5, 8, requires_grad=True), torch.randn(11, 8, requires_grad=True)
    labels = torch.randint(0, 11, (2, 5))

    def use() -> list[Tensor]:
        head = part("verl.utils.experimental.torch_functional:FusedLinearForPPO")()
        logprobs, entropy = head(hidden, weight, labels, temperature=temperature)
        gradients = torch.autograd.grad((logprobs * 1.5 + entropy).sum(), (hidden, weight))
        return [logprobs, entropy, *gradients]

    for a, b in zip(*both_ways(library, use), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    with verl.patched():
        kernel = part("verl.utils.kernel.linear_cross_entropy:linear_cross_entropy")
        flat = kernel(hidden, weight, labels, temperature, "none")
    for a, b in zip(flat, use()[:2], strict=True):
        torch.testing.assert_close(a, b.flatten(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("source", "library"), VERL)
def test_verl_logprobs_from_logits_and_who_imported_it_by_name(
    source: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide(source, library, monkeypatch)
    logits, labels = torch.randn(2, 5, 11), torch.randint(0, 11, (2, 5))

    def use() -> Tensor:
        return part("verl.utils.torch_functional:logprobs_from_logits")(logits, labels)

    torch.testing.assert_close(*both_ways(library, use))
    if source == "recorded":
        with verl.patched():
            assert part("verl.workers.engine.fsdp.transformer_impl:logprobs_from_logits") is verl.logprobs_from_logits


@pytest.mark.parametrize(("source", "library"), VERL)
@pytest.mark.parametrize("holes", [False, True])
def test_verl_gae(source: str, library: str, holes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(source, library, monkeypatch)
    x = tensors(holes=holes)

    def use(by_name: bool = False) -> tuple[Tensor, Tensor]:
        algorithms = part("verl.trainer.ppo:core_algos")
        by = algorithms.ADV_ESTIMATOR_REGISTRY["gae"] if by_name else algorithms.compute_gae_advantage_return
        return by(x["rewards"], x["values"], x["mask"], torch.tensor(0.9), torch.tensor(0.8))

    theirs, ours = both_ways(library, use)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a * x["mask"], b * x["mask"], atol=1e-5, rtol=1e-5)
        assert (a * (1 - x["mask"]) == 0).all()
    with verl.patched():
        assert torch.equal(use(by_name=True)[0], ours[0])


@pytest.mark.parametrize(("source", "library"), VERL)
@pytest.mark.parametrize(
    ("mode", "config", "weighted"),
    [
        ("token-mean", {}, False),
        ("token-mean", {"global_batch_info": {"dp_size": 2, "batch_num_tokens": 23}, "clip_ratio_low": 0.1}, True),
        ("token-sum", {"clip_ratio_c": 1.5}, False),
        ("seq-mean-token-mean", {"clip_ratio_high": 0.4}, True),
        ("seq-mean-token-sum", {"global_batch_info": {"global_batch_size": 7}}, False),
        ("seq-mean-token-sum-norm", {"global_batch_info": {"loss_scale_factor": 9}}, False),
    ],
)
def test_verl_policy_loss(
    source: str, library: str, mode: str, config: dict[str, Any], weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide(source, library, monkeypatch)
    x = tensors()
    x["new"][0, 0] += 30.0  # beyond the clamp of the log-ratio
    weights = torch.rand(4, 9) + 0.1 if weighted else None
    with verl.patched():
        registry = part("verl.trainer.ppo:core_algos").POLICY_LOSS_REGISTRY
        results = []
        for name in ("vanilla", "rlsft_ppo"):
            new = x["new"].clone().requires_grad_()
            arguments = (x["old"], new, x["advantages"], x["mask"], mode, actor_config(source, config), weights)
            loss, metrics = registry[name](*arguments)
            loss.backward()
            results.append((loss.detach(), new.grad, metrics))
    (theirs, their_gradient, their_metrics), (ours, our_gradient, our_metrics) = results
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-5, rtol=1e-5)
    assert our_metrics == pytest.approx(their_metrics, abs=1e-5)
    assert "rlsft_ppo" not in registry


def actor_config(source: str, changes: dict[str, Any]) -> Any:
    if source == "recorded":
        return foreign.actor_config(**changes)
    from verl.workers.config import FSDPActorConfig

    fields = {k: v for k, v in changes.items() if k != "global_batch_info"}
    defaults = {"clip_ratio_low": None, "clip_ratio_high": None}
    config = FSDPActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, **{**defaults, **fields})
    config.global_batch_info.update(changes.get("global_batch_info", {}))
    return config


@pytest.mark.parametrize(("source", "library"), OPENRLHF)
@pytest.mark.parametrize("family", ["gpt2", "gemma2-softcap"])
def test_openrlhf_actor(source: str, library: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(source, library, monkeypatch)
    actor_class = part("openrlhf.models.actor:Actor")
    actor = actor_class(family_model(family), temperature=0.7)
    if source == "real":
        actor.packing_samples = False
    sequences = torch.randint(3, 96, (2, 8))
    attention = torch.ones_like(sequences)
    attention[1, :3] = 0  # left padding
    actions = torch.tensor([[1, 1, 1], [1, 1, 0]])

    def use() -> list[Tensor]:
        logprobs, output = actor(sequences, actions, attention_mask=attention, return_output=True, return_entropy=True)
        actor.zero_grad()
        (logprobs.sum() + output.entropy[:, -3:].mean()).backward()
        gradients = [p.grad.clone() for p in actor.parameters()]
        every = actor(sequences, attention_mask=attention, return_logprobs=True)
        logits = actor(sequences, attention_mask=attention, return_output=True)["logits"]
        return [logprobs, output.entropy, every, logits, *gradients]

    for a, b in zip(*both_ways(library, use), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(("source", "library"), OPENRLHF)
def test_openrlhf_actor_makes_no_logits(source: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.integrations.test_transformers_patch import Sizes

    provide(source, library, monkeypatch)
    actor = part("openrlhf.models.actor:Actor")(family_model("qwen2"))
    actor.packing_samples = False
    sequences = torch.randint(3, 96, (2, 9))
    with openrlhf.patched(), Sizes() as sizes:
        actor(sequences, torch.ones(2, 3), attention_mask=torch.ones_like(sequences)).sum().backward()
    assert 2 * 9 * 96 not in sizes.seen


@pytest.mark.parametrize(("source", "library"), OPENRLHF)
def test_openrlhf_functions_of_logits_and_gae(source: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(source, library, monkeypatch)
    labels, x = torch.randint(0, 11, (2, 5)), tensors()
    logits = torch.randn(2, 5, 11)

    def use() -> list[Tensor]:
        scored = [
            part("openrlhf.models.actor:log_probs_from_logits")(logits.clone(), labels, 0.7),
            part("openrlhf.models.utils:compute_entropy")(logits),
        ]
        maker: Any = part("openrlhf.trainer.ppo_utils.experience_maker:RemoteExperienceMaker")
        gae = maker.get_advantages_and_returns(None, x["values"], x["rewards"], x["mask"], 0.9, 0.8)
        return [*scored, *(y * x["mask"] for y in gae)]

    for a, b in zip(*both_ways(library, use), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("source", "library"), OPENRLHF)
@pytest.mark.parametrize(
    ("settings", "batch"),
    [
        ({}, {}),
        ({"dual_clip": 1.5, "clip_eps_low": 0.1}, {"dp_size": 2, "batch_num_tokens": 23.0}),
        ({"token_level_loss": False, "clip_eps_high": 0.4}, {"dp_size": 2, "global_batch_size": 5.0}),
    ],
)
def test_openrlhf_policy_loss(
    source: str, library: str, settings: dict[str, Any], batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    provide(source, library, monkeypatch)
    x = tensors()

    def use() -> list[Tensor]:
        new = x["new"].clone().requires_grad_()
        loss_of = part("openrlhf.models.loss:PolicyLoss")(**settings)
        loss, clip_ratio, kl, *rest = loss_of(new, x["old"], x["advantages"], x["mask"], **batch)
        assert rest == [None, None]
        loss.backward()
        assert new.grad is not None
        return [loss.detach(), clip_ratio, kl, new.grad]

    for a, b in zip(*both_ways(library, use), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
