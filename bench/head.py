"""The language-model head of the benches: inputs, what is right, the floor, and how far a result is off.

One set of inputs, rounded to bfloat16, serves both dtypes, so that they share their float64 truth. A provider's `run`
returns a dict of tensors, `loss` or `logprob` and the gradients `hidden` and `weight`; whatever is there is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from bench.measure import Provider
from bench.request import Request
from rlsft_kernels._backend import backend_calls

Result = dict[str, Tensor]
SHAPE_LETTERS = ("N", "H", "V")
QUICK = (192, 16, 101)
DEFAULT = [(2048, 576, 49152), (2048, 768, 50257)]
FULL = [*DEFAULT, (2048, 2048, 32000), (2048, 1024, 151936), (256, 576, 49152), (8192, 576, 49152)]
TRUTH_ROWS = 256  # of one float64 block
# |result - truth| / |truth| beyond which no time is taken: some times what plain PyTorch is off by at these shapes
LIMITS = {"float32": 2e-5, "bfloat16": 4e-2, "float16": 5e-3}


@dataclass(frozen=True, eq=False)
class HeadInputs:
    """Hidden states of trained tokens, a head, targets, and what a policy update knows of the tokens."""

    hidden: Tensor  # [N, H] float32, rounded to bfloat16
    weight: Tensor  # [V, H]
    targets: Tensor  # [N]
    upstream: Tensor  # [N] gradient by the log-probabilities

    @property
    def sizes(self) -> tuple[int, int, int]:
        return (*self.hidden.shape, self.weight.shape[0])  # type: ignore[return-value]

    @property
    def takes_seconds(self) -> bool:
        """Whether a slow peer takes seconds for a call."""
        N, H, V = self.sizes
        return N * H * V > 2e9

    def leaves(self, dtype: str) -> tuple[Tensor, Tensor]:
        """hidden and weight of a dtype as new leaves of autograd; converted once, for no clock should see that."""
        return tuple(x.detach().requires_grad_() for x in converted(self, dtype))  # type: ignore[return-value]


@lru_cache(maxsize=1)
def head_inputs(N: int, H: int, V: int, device: str = "cpu") -> HeadInputs:
    """Logits of a spread of about 2, as trained models have them; the same numbers on every device."""
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, H, generator=g).bfloat16().float()
    weight = (torch.randn(V, H, generator=g) * 2 / H**0.5).bfloat16().float()
    targets = torch.randint(0, V, (N,), generator=g)
    return HeadInputs(*(x.to(device) for x in (hidden, weight, targets, torch.randn(N, generator=g))))


def shapes_of(request: Request) -> list[tuple[int, int, int]]:
    """The user's shape, or the bench's."""
    if request.shape:
        return [(request.shape["N"], request.shape["H"], request.shape["V"])]
    if request.quick:
        return [QUICK]
    return FULL if request.full else DEFAULT


def combinations(request: Request) -> Iterator[tuple[HeadInputs, str, int, Request]]:
    """(inputs, dtype, threads, who takes part): two threads with everybody, one thread with ours, floor and eager."""
    for sizes in shapes_of(request):
        inputs = head_inputs(*sizes, request.device)
        for dtype in request.dtypes or ("bfloat16", "float32"):
            for threads in request.threads or (2,):
                yield inputs, dtype, threads, request
            if not request.threads and not request.quick and dtype == "bfloat16" and sizes == DEFAULT[0]:
                yield inputs, dtype, 1, replace(request, peers=("eager",))


@lru_cache(maxsize=1)
def converted(inputs: HeadInputs, dtype: str) -> tuple[Tensor, Tensor]:
    """hidden and weight of a dtype."""
    kind = getattr(torch, dtype)
    return inputs.hidden.to(kind), inputs.weight.to(kind)


@lru_cache(maxsize=1)
def truth_logprobs(inputs: HeadInputs) -> Tensor:
    """[N] float64, a block of rows at a time."""
    weight = inputs.weight.double()
    blocks = zip(inputs.hidden.split(TRUTH_ROWS), inputs.targets.split(TRUTH_ROWS), strict=True)
    return torch.cat([(x.double() @ weight.T).log_softmax(1).gather(1, t[:, None])[:, 0] for x, t in blocks])


@lru_cache(maxsize=3)
def truth_gradients(inputs: HeadInputs, upstream: Tensor) -> Result:
    """Gradients of `(upstream * logprob).sum()` in float64, a block of rows at a time."""
    weight = inputs.weight.double()
    grad_hidden, grad_weight = torch.empty_like(inputs.hidden, dtype=torch.float64), torch.zeros_like(weight)
    for start in range(0, len(inputs.hidden), TRUTH_ROWS):
        rows = slice(start, start + TRUTH_ROWS)
        x, g = inputs.hidden[rows].double(), upstream[rows, None].double()
        grad = (x @ weight.T).softmax(1).mul_(-g)
        grad.scatter_add_(1, inputs.targets[rows, None], g)
        grad_hidden[rows] = grad @ weight
        grad_weight.addmm_(grad.T, x)
    return {"hidden": grad_hidden, "weight": grad_weight}


def gemm_floor(inputs: HeadInputs, dtype: str, gemms: int) -> Callable[[], None]:
    """The bare products of the job over all rows at once, which is the best case of a floor.

    1: the logits. 3: logits and both gradients. 4: logits twice. 5: a second model's logits too.
    """
    kind = getattr(torch, dtype)
    N, H, V = inputs.sizes
    hidden, weight = inputs.hidden.to(kind), inputs.weight.to(kind)
    tile, grad_hidden, grad_weight = (hidden.new_empty(size) for size in ((N, V), (N, H), (V, H)))

    def run() -> None:
        for _ in range(gemms if gemms == 1 else gemms - 2):
            torch.mm(hidden, weight.t(), out=tile)
        if gemms > 1:
            torch.mm(tile, weight, out=grad_hidden)
            torch.mm(tile.t(), hidden, out=grad_weight)

    return run


def floor_provider(inputs: HeadInputs, dtype: str, gemms: int, threads: int) -> Provider:
    """The floor as a row."""
    return Provider(f"floor: {gemms} bare GEMM{'s' * (gemms > 1)}", gemm_floor(inputs, dtype, gemms), threads=threads)


@dataclass
class HeadCase:
    """One job at one shape in one dtype."""

    op: str
    inputs: HeadInputs
    dtype: str
    note: str  # the job
    truth: Callable[[], Mapping[str, Tensor]]
    providers: list[Provider]
    floor: str
    gemms: int  # bare products of the job
    baseline: str = "eager full logits"
    seconds_each: float = 4.0  # four jobs, four cases each, eight providers: minutes in all

    @property
    def shape(self) -> str:
        N, H, V = self.inputs.sizes
        return f"N={N},H={H},V={V}"

    @property
    def flops(self) -> int:
        """Of the bare products."""
        N, H, V = self.inputs.sizes
        return 2 * self.gemms * N * H * V

    @property
    def bytes_moved(self) -> int:
        """Inputs and results once; the logits need not leave the chip."""
        N, H, V = self.inputs.sizes
        return (N * H + V * H) * getattr(torch, self.dtype).itemsize * (2 if self.gemms > 1 else 1)

    @cached_property
    def _truth(self) -> Mapping[str, Tensor]:
        return self.truth()

    def check(self, provider: Provider) -> str:
        """The largest relative error of a tensor that the provider returned; raises beyond the limit of the dtype."""
        if provider.name.startswith("floor"):
            return "bare products: a limit"
        torch.set_num_threads(provider.threads)
        result, backend = ran_on(provider.run, self.op)
        errors = {name: relative_error(x, self._truth[name]) for name, x in result.items()}
        worst = max(errors, key=lambda name: errors[name])
        if not errors[worst] <= LIMITS[self.dtype]:
            raise AssertionError(
                f"{provider.name}: {worst} is off by {errors[worst]:.1e} of its length on {self.shape} {self.dtype}, "
                f"more than {LIMITS[self.dtype]:.0e}; not timed"
            )
        return f"{worst} {errors[worst]:.1e}{backend}"


def ran_on(run: Callable[[], Result], op: str) -> tuple[Result, str]:
    """The result, and which backend of the op it came from where it came from the op."""
    before = backend_calls()
    result = run()
    ran = [name for (of, name), count in backend_calls().items() if of == op and count > before.get((of, name), 0)]
    return result, f", {'+'.join(ran)}" if ran else ""


def relative_error(x: Tensor, truth: Tensor) -> float:
    """|x - truth| / |truth|; infinite where a number is not finite."""
    error = float((x.detach().double() - truth).norm() / truth.norm().clamp(min=1e-300))
    return error if error == error else float("inf")
