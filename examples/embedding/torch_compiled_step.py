"""The fused head inside torch.compile, without a graph break. Needs torch and NumPy alone."""

import torch
from torch import Tensor

from rlsft_kernels import linear_logprob


@torch.compile(fullgraph=True, backend="aot_eager")  # leave backend out where a compiler is installed
def surrogate(hidden: Tensor, weight: Tensor, targets: Tensor, advantages: Tensor) -> Tensor:
    out = linear_logprob(hidden, weight, targets, temperature=0.7, outputs=("logprob", "entropy"))
    return -(advantages * out.logprob + 0.01 * out.entropy).mean()


torch.manual_seed(0)
hidden, weight = torch.randn(16, 32, requires_grad=True), torch.randn(500, 32, requires_grad=True)
loss = surrogate(hidden, weight, torch.randint(0, 500, (16,)), torch.randn(16))
loss.backward()
print(f"loss {loss.item():.3f}, gradient of the head {weight.grad.norm().item():.3f}")
