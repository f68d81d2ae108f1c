"""Two small kernels that exercise the harness: a masked softmax, and a log-sum-exp of a product by `tl.dot`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def masked_softmax_kernel(x_ptr, y_ptr, stride, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + columns, mask=columns < n, other=-float("inf")).to(tl.float32)
    e = tl.exp(x - tl.max(x, 0))
    tl.store(y_ptr + row * stride + columns, e / tl.sum(e, 0), mask=columns < n)


@triton.jit
def linear_lse_kernel(
    a_ptr, w_ptr, lse_ptr, M, V, K, stride_a, stride_w, BM: tl.constexpr, BV: tl.constexpr, BK: tl.constexpr
):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    largest = tl.full((BM,), -float("inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    for first in range(0, V, BV):
        columns = first + tl.arange(0, BV)
        product = tl.zeros((BM, BV), tl.float32)
        for start in range(0, K, BK):
            k = start + tl.arange(0, BK)
            a = tl.load(
                a_ptr + rows[:, None] * stride_a + k[None, :], mask=(rows[:, None] < M) & (k[None, :] < K), other=0.0
            )
            w = tl.load(
                w_ptr + columns[None, :] * stride_w + k[:, None],
                mask=(columns[None, :] < V) & (k[:, None] < K), other=0.0,
            )  # fmt: skip
            product = tl.dot(a, w, product)
        product = tl.where(columns[None, :] < V, product, -float("inf"))
        new = tl.maximum(largest, tl.max(product, 1))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(product - new[:, None]), 1)
        largest = new
    tl.store(lse_ptr + rows, largest + tl.log(total), mask=rows < M)


def masked_softmax(x_RN: Tensor, block: int = 1024, num_warps: int = 4) -> Tensor:
    """Softmax of each row."""
    y_RN = torch.zeros_like(x_RN)
    if len(x_RN):
        masked_softmax_kernel[(len(x_RN),)](x_RN, y_RN, x_RN.stride(0), x_RN.shape[1], BLOCK=block, num_warps=num_warps)
    return y_RN


def linear_lse(a_MK: Tensor, w_VK: Tensor, tile: tuple[int, int, int] = (64, 64, 32), num_stages: int = 3) -> Tensor:
    """Log-sum-exp over the vocabulary of `a @ w.T`."""
    M, K = a_MK.shape
    lse_M = torch.zeros(M)
    if M:
        linear_lse_kernel[(triton.cdiv(M, tile[0]),)](
            a_MK, w_VK, lse_M, M, len(w_VK), K, a_MK.stride(0), w_VK.stride(0),
            BM=tile[0], BV=tile[1], BK=tile[2], num_warps=4, num_stages=num_stages,
        )  # fmt: skip
    return lse_M
