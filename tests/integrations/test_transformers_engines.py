"""A patched model under DDP, FSDP2 and torch.compile gives what one plain process gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rlsft.integrations.transformers import patch_model
from tests.integrations.test_transformers_patch import batch, loss_and_gradients
from tests.support.families import family_model

ROOT = Path(__file__).parents[2]
SECONDS = 200  # a hang is a failure, not a wait; alone on two cores the run takes some 12


@pytest.mark.slow
def test_two_ranks_of_two_equal_one_of_four(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *("-m", "tests.support.patched_two_ranks", str(tmp_path)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for rank in (0, 1):
        results: dict[str, Any] = json.loads((tmp_path / f"rank_{rank}.json").read_text())
        assert results.keys() == {"ddp", "ddp-static", "fsdp2", "fsdp2-own-head"}
        for kind, result in results.items():
            assert result["loss"] < 1e-5, kind
            assert result["gradient"] < 1e-5, kind
            assert result["logits"] < 1e-5, kind
            assert not result["made_at_once"], kind
            assert result["plain_after_unpatch"], kind


def test_compiled_without_a_graph_break() -> None:
    family = "gemma2-softcap"
    torch._dynamo.reset()
    model, reference = patch_model(family_model(family)), family_model(family)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    outputs = compiled(**batch())
    outputs.loss.backward()
    expected, gradients = loss_and_gradients(reference)
    torch.testing.assert_close(outputs.loss.detach(), expected, atol=1e-5, rtol=1e-5)
    assert "logits" not in outputs
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], atol=1e-5, rtol=1e-5, msg=name)
    with torch.no_grad():
        plain = compiled(**{k: v for k, v in batch().items() if k != "labels"}).logits
    torch.testing.assert_close(plain, reference(**batch()).logits)


def test_replicas_of_data_parallel_use_their_own_weights() -> None:
    """What nn.DataParallel does on several GPUs: copies of `__dict__`, other parameters, tensors in the output only."""
    model: Any = patch_model(family_model("qwen2"))
    replica = model._replicate_for_data_parallel()
    head = model.lm_head._replicate_for_data_parallel()
    for name, module in model._modules.items():
        setattr(replica, name, module)
    head.weight, head.bias = torch.zeros_like(model.lm_head.weight), None
    replica.lm_head = head
    outputs = replica(**batch(), num_items_in_batch=torch.tensor([29]))
    count = int((batch()["labels"][:, 1:] != -100).sum())
    assert outputs.loss.item() == pytest.approx(torch.tensor(96.0).log().item() * count / 29, rel=1e-5)
    assert "logits" not in outputs
    assert model.lm_head._rlsft_call is None  # the call of the replica did not pass through the original
