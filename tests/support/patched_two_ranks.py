"""What each rank of tests/integrations/test_transformers_engines.py runs: `… this_file FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from rlsft.integrations.transformers import patch_model, unpatch_model
from tests.integrations.test_transformers_patch import batch
from tests.support.families import family_model

FAMILY = "gemma2-softcap"  # a softcap and a tied head


def wrap(kind: str, model: Any) -> Any:
    """`model` under one of the engines, after the patch."""
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    if kind == "ddp-static":
        return nn.parallel.DistributedDataParallel(model, static_graph=True)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    if kind == "fsdp2-own-head":
        fully_shard(model.lm_head, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def full(x: Tensor) -> Tensor:
    """The whole tensor of a shard."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def errors(kind: str, family: str) -> dict[str, Any]:
    """Largest differences from one process on the whole batch, and the classes and logits that came out."""
    rank, inputs = dist.get_rank(), batch(rows=4)
    count = (inputs["labels"][:, 1:] != -100).sum()
    reference: Any = family_model(family)
    expected = reference(**inputs, num_items_in_batch=count).loss
    expected.backward()
    model = wrap(kind, patch_model(family_model(family)))
    mine = {name: x[2 * rank : 2 * rank + 2] for name, x in inputs.items()}
    for _ in range(2):  # a second step: engines build their plans in the first
        model.zero_grad()
        outputs = model(**mine, num_items_in_batch=count)
        (outputs.loss * dist.get_world_size()).backward()  # the engines average over ranks
    loss = outputs.loss.detach()
    dist.all_reduce(loss)
    inner = model.module if kind.startswith("ddp") else model
    pairs = zip(inner.parameters(), reference.parameters(), strict=True)
    gradient_error = max((full(a.grad) - b.grad).abs().max().item() for a, b in pairs)
    kept = model.train()(**mine, num_items_in_batch=count, skip_logits=False).logits
    logits_error = (kept - reference(**mine).logits).abs().max().item()
    made_at_once = outputs.logits.is_made
    unpatch_model(model)
    plain = model(**mine).logits
    return {
        "loss": abs(loss.item() - expected.item()),
        "gradient": gradient_error,
        "logits": logits_error,
        "made_at_once": made_at_once,
        "plain_after_unpatch": type(plain) is Tensor,
    }


def main() -> None:
    """All engines on all ranks; rank by rank into a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    results = {kind: errors(kind, FAMILY) for kind in ("ddp", "ddp-static", "fsdp2")}
    results["fsdp2-own-head"] = errors("fsdp2-own-head", "qwen2")  # untied: its weight is gathered for its own forward
    (Path(sys.argv[1]) / f"rank_{os.environ['RANK']}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
