"""Interpreters that lack things, forked from one that has imported torch: `python -m … CASES`, JSON in and out.

Torch is imported first, as it has its own ways on every system; what is measured or taken away is ours.
"""

from __future__ import annotations

import importlib.abc
import json
import os
import sys
import time
import warnings
from typing import Any

import numpy  # noqa: F401  (what rlsft_kernels stands on is not part of its own time)
import torch

POSIX_CALLS = ("sched_getaffinity", "fork", "getloadavg", "posix_fallocate", "sysconf", "getuid")


class Without(importlib.abc.MetaPathFinder):
    """A finder that does not find some modules: neither does `importlib.util.find_spec`, which torch asks."""

    def __init__(self, finder: Any, names: list[str]) -> None:
        self.finder, self.names = finder, names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return None if covers(self.names, name) else self.finder.find_spec(name, path, target)


def covers(names: list[str], name: str) -> bool:
    """Whether `name` is one of them, or inside one."""
    return any(name == missing or name.startswith(missing + ".") for missing in names)


def take_away(names: list[str], system: str) -> None:
    """Make this interpreter one of `system` without the modules `names`."""

    for name in [n for n in sys.modules if covers(names, n)]:
        del sys.modules[name]
    sys.meta_path[:] = [Without(finder, names) for finder in sys.meta_path]
    if system != "linux":
        sys.platform = system
        for name in POSIX_CALLS:
            vars(os).pop(name, None)


def seconds_to_import(package: str) -> float:
    """Processor time, so that other processes of a busy machine do not count."""
    start = time.process_time()
    __import__(package)
    return time.process_time() - start


def numbers_of_ops(names: list[str], system: str) -> dict[str, Any]:
    """What the ops answer where things are missing, and what was said about it."""
    take_away(names, system)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import rlsft  # noqa: F401
        import rlsft_kernels
        from rlsft_kernels._backend import doctor_report

        hidden, zeros = torch.zeros(3, 4, requires_grad=True), torch.zeros(1, 2)
        loss, _ = rlsft_kernels.linear_cross_entropy(hidden, torch.ones(7, 4), torch.tensor([1, 2, 3]))
        loss.backward()
        ranking = rlsft_kernels.textrank(torch.rand(4, 4, dtype=torch.float64))
        gae = rlsft_kernels.kl_shaped_gae(torch.ones(1), zeros, None, zeros, zeros == 0, kl_coef=0.0)
        report = doctor_report()
    return {
        "loss": loss.item(),
        "rank": float(ranking.scores.sum()),
        "returns": gae.returns.tolist(),
        "native": report["native"],
        "triton": report["triton"],
        "warned": [str(w.message) for w in caught if "slower reference" in str(w.message)],
        "loaded": [name for name in ("transformers", "rlsft.trainers") if name in sys.modules],
    }


def in_a_child(call: Any, *arguments: Any) -> Any:
    """`call(*arguments)` in a fork of this interpreter; an error comes back as its text."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        leave = os._exit
        try:
            answer = call(*arguments)
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write, json.dumps(answer).encode())
        leave(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(child, 0)
    return answer


def main() -> None:
    """Times of imports, and the answers of the ops in each case."""
    cases = json.loads(sys.argv[1])
    packages = ("rlsft_kernels", "rlsft")
    times = {name: [in_a_child(seconds_to_import, name) for _ in range(7)] for name in packages}
    answers = {name: in_a_child(numbers_of_ops, *case) for name, case in cases.items()}
    print(json.dumps({"times": times, "answers": answers}))


if __name__ == "__main__":
    main()
