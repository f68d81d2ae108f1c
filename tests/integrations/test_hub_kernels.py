"""The tree for the Hugging Face kernels hub: built by one command, loaded offline by its own client, equal numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rlsft_kernels
from scripts import hub_kernels

kernels = pytest.importorskip(
    "kernels", reason="the hub's client is not installed: pip install --no-deps kernels==0.17.2"
)

ROOT = Path(__file__).parents[2]
IGNORED = "ignore:.*runs on its slower reference because native is not available.*:RuntimeWarning"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    hub_kernels.main(["--output", str(folder), "--repo-id", "someone/rlsft-kernels"])
    return folder


@pytest.fixture(scope="module")
def module(hub: Path) -> Any:
    return kernels.get_local_kernel(hub / "build", trust_remote_code=True)


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    hidden = torch.randn(2, 5, 8, dtype=dtype, requires_grad=True)
    weight = torch.randn(11, 8, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 11, (2, 5))
    labels[0, :2] = -100
    return hidden, weight, labels


def test_trees_and_digests(hub: Path) -> None:
    from kernels._rust import Digest, DigestAlgorithm, Metadata

    assert sorted(p.name for p in (hub / "build").iterdir()) == ["torch-cpu", "torch-cuda", "torch-rocm"]
    for tree in (hub / "build").iterdir():
        metadata = Metadata.read_from_file(tree / "metadata.json")
        metadata.digest.validate(Digest.hash_variant(DigestAlgorithm.SHA256, tree))
        assert str(metadata.name) == "rlsft-kernels"
        assert f"torch-{str(metadata.backend.backend_type).lower()}" == tree.name
        sources = {p.relative_to(hub_kernels.SOURCES) for p in hub_kernels.SOURCES.rglob("*.py")}
        assert {p.relative_to(tree) for p in tree.rglob("*.py")} == sources
    assert 'repo-id = "someone/rlsft-kernels"' in (hub / "build.toml").read_text()


def test_a_second_build_has_the_same_bytes(hub: Path, tmp_path: Path) -> None:
    hub_kernels.main(["--output", str(tmp_path)])
    for name in ("__init__.py", "metadata.json"):
        first, second = (folder / "build" / "torch-cuda" / name for folder in (hub, tmp_path))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.filterwarnings(IGNORED)
def test_the_loaded_ops_are_the_installed_ones_under_another_name(module: Any) -> None:
    assert module is not rlsft_kernels
    assert set(module.__all__) == {*rlsft_kernels.__all__, "layers"}
    assert all(hasattr(module, name) for name in module.__all__)
    loaded = {name for name in sys.modules if name.startswith(f"{module.__name__}.")}
    assert loaded, "no part of the tree was imported: it runs on the installed package"
    values = []
    for library in (module, rlsft_kernels):
        torch.manual_seed(0)
        hidden, weight, labels = inputs()
        out = library.linear_logprob(hidden, weight, labels, outputs=("logprob", "entropy"), backend="reference")
        gradients = torch.autograd.grad(out.logprob.sum() + out.entropy.sum(), (hidden, weight))
        values.append([out.logprob, out.entropy, *gradients])
    assert all(torch.equal(a, b) for a, b in zip(*values, strict=True))
    namespace = module.__name__.strip("_")
    assert hasattr(getattr(torch.ops, namespace), "linear_logprob")
    scores = module.textrank(torch.rand(4, 4, dtype=torch.float64), backend="reference").scores
    assert scores.shape == (4,)


class Loss(nn.Module):
    """A layer of somebody's model, open to the hub: `use_kernel_forward_from_hub` names what may replace it."""

    def forward(  # the client wants the names and kinds of the layer's arguments
        self, hidden_states: Tensor, lm_head_weight: Tensor, labels: Tensor, hidden_size: Any = None,
        num_items_in_batch: Any = None, ignore_index: int = -100, shift_labels: Any = None,
        final_logit_softcapping: Any = None, **_unused: Any,
    ) -> Tensor:  # fmt: skip
        logits = hidden_states[:, :-1] @ lm_head_weight.t()
        return cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())


@pytest.mark.filterwarnings(IGNORED)
def test_the_layer_through_kernelize(hub: Path) -> None:
    layer_class = kernels.use_kernel_forward_from_hub("ForCausalLMLoss")(Loss)
    model = nn.Sequential(layer_class())
    hidden, weight, labels = inputs()
    expected = model[0](hidden, weight, labels)
    repository = kernels.LocalLayerRepository(hub / "build", layer_name="ForCausalLMLoss")
    with kernels.use_kernel_mapping({"ForCausalLMLoss": {"cpu": repository}}):
        kernelized = kernels.kernelize(model, mode=kernels.Mode.TRAINING, device="cpu", use_fallback=False)
    loss = kernelized[0](hidden, weight, labels)
    assert type(loss.grad_fn).__name__ != type(expected.grad_fn).__name__  # it is not the old forward
    torch.testing.assert_close(loss, expected)
    for a, b in zip(*(torch.autograd.grad(x, (hidden, weight)) for x in (loss, expected)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings(IGNORED)
def test_the_layer_by_hand(module: Any) -> None:
    layer = module.layers.ForCausalLMLoss()
    hidden, weight, labels = inputs(torch.float64)
    capped = 2.0 * torch.tanh(hidden[:, :-1] @ weight.t() / 2.0)
    expected = cross_entropy(capped.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum") / 13
    count = torch.tensor([13])
    torch.testing.assert_close(
        layer(hidden, weight, labels, num_items_in_batch=count, final_logit_softcapping=2.0), expected
    )
    shifted = nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
    torch.testing.assert_close(
        layer(hidden, weight, None, shift_labels=shifted, num_items_in_batch=13, final_logit_softcapping=2.0), expected
    )
    with pytest.raises(ValueError, match="labels or shift_labels is needed"):
        layer(hidden, weight, None)


def test_offline_by_its_hub_name_where_rlsft_is_not_installed(hub: Path) -> None:
    """`get_kernel` in a process that cannot import `rlsft_kernels`: nothing leans on the installed package."""
    code = (
        "import sys; sys.modules['rlsft_kernels'] = None; sys.modules['rlsft'] = None; import torch, kernels\n"
        "ops = kernels.get_kernel('someone/rlsft-kernels', version=1, trust_remote_code=True)\n"
        "loss, stats = ops.linear_cross_entropy(torch.zeros(3, 4), torch.ones(7, 4), torch.tensor([1, 2, 3]))\n"
        "print(round(loss.item(), 4), int(stats['num_tokens']))"
    )
    environment = {**os.environ, "LOCAL_KERNELS": f"someone/rlsft-kernels={hub}", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=hub, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["1.9459", "3"]  # ln 7


@pytest.mark.parametrize(
    ("text", "depth", "expected"),
    [
        ("from rlsft_kernels._head.head import Head", 1, "from .._head.head import Head"),
        ("    from rlsft_kernels import _C", 2, "    from ... import _C"),
        ("from rlsft_kernels.isodata.op import isodata", 0, "from .isodata.op import isodata"),
        ('importlib.import_module("rlsft_kernels._C")', 0, 'importlib.import_module("._C", __package__)'),
    ],
)
def test_imports_become_relative(text: str, depth: int, expected: str) -> None:
    assert hub_kernels.relative(text, depth) == expected


@pytest.mark.parametrize(
    "text", ["import rlsft_kernels", "from rlsft_kernels import x", "y = torch.ops.rlsft.f", 'op("rlsft::f")']
)
def test_a_form_that_is_not_known_stops_the_build(text: str) -> None:
    with pytest.raises(SystemExit, match="does not know"):
        hub_kernels.check_transformed(Path("op.py"), text)


def test_metadata_is_plain_json(hub: Path) -> None:
    metadata = json.loads((hub / "build/torch-cpu/metadata.json").read_text())
    assert metadata["python-depends"] == []
    assert metadata["version"] == hub_kernels.VERSION
