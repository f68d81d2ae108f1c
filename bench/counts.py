"""What a call asks of the framework: operators started, waits for a value, memory allocated."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from bench.measure import Provider

# an operator that must know a number on the host before it can go on; on a GPU each waits for everything before it
SYNCS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}
NO_WORK = ("autograd::", "torch::", "[", "ProfilerStep")


def counts_of(provider: Provider) -> str:
    """One line: operators that called no other, those that wait, MiB allocated in all (given back ones too)."""
    torch.set_num_threads(provider.threads)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        provider.run()
    leaves = [event for event in recorded.events() if not event.cpu_children and not event.name.startswith(NO_WORK)]
    syncs = sum(event.name in SYNCS for event in recorded.events())
    mib = sum(max(0, event.self_cpu_memory_usage) for event in recorded.events()) / 2**20
    return f"{len(leaves)} operators, {syncs} waits, {mib:.0f} MiB allocated"
