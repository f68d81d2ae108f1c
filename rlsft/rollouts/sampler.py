"""One token a row from logits: temperature, top-k, nucleus, and one uniform number a draw.

A draw inverts the cumulative distribution at a given uniform number. So a row's token depends on its own
logits and its own number only: not on its neighbours, the batch size or the order of the rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rlsft.rollouts.sampling import SamplingParams

# Sorting a whole vocabulary a step is what makes nucleus sampling slow on a CPU. The likeliest few hundred tokens
# nearly always hold `top_p` of the mass, and then they hold the whole nucleus; other rows are sorted in full.
PREFIX_WIDTH = 256


def uniforms_of(sampling: SamplingParams, num_prompts: int, num_samples: int) -> Tensor:
    """The uniform numbers of a whole draw, `[num_prompts, num_samples, max_new_tokens]` float32 in [0, 1).

    Each prompt has its own stream, keyed by `seed` and its place: a part of a draw equals that part of the whole.
    """
    shape = (num_samples, sampling.max_new_tokens)
    streams = [
        np.random.default_rng([sampling.seed, sampling.prompt_offset + index]).random(shape, dtype=np.float32)
        for index in range(num_prompts)
    ]
    return torch.from_numpy(np.stack(streams)) if streams else torch.empty(0, *shape)


def sample_tokens(logits: Tensor, uniforms: Tensor, sampling: SamplingParams) -> tuple[Tensor, Tensor]:
    """Draw one token a row.

    Args:
        logits: `[B, V]`, any floating dtype; the arithmetic is float32.
        uniforms: `[B]` float32 in [0, 1), unused when greedy.
        sampling: temperature, top_k and top_p.

    Returns:
        tokens `[B]` int64, and their log-probability `[B]` float32 under `softmax(logits / temperature)`
        without truncation; not finite where a row of logits holds NaN, +inf or nothing but -inf.
    """
    scaled = logits.float()
    if sampling.scoring_temperature != 1:
        # in place where `float()` made a copy: [B, V] buffers are what a step's time goes into
        scaled = (scaled / sampling.scoring_temperature) if scaled is logits else scaled.div_(sampling.temperature)
    peak = scaled.amax(dim=-1)
    weights = (scaled - peak[:, None]).exp_()
    lse = peak + weights.sum(dim=-1).log()
    if sampling.is_greedy:
        tokens = scaled.argmax(dim=-1)
    elif sampling.top_k == 0 and sampling.top_p == 1:
        tokens = invert_cdf(weights, uniforms)
    else:
        tokens = _sample_truncated(scaled, lse, uniforms, sampling)
    return tokens, scaled.gather(-1, tokens[:, None])[:, 0] - lse


def invert_cdf(weights: Tensor, uniforms: Tensor) -> Tensor:
    """First index whose cumulative weight exceeds `uniform * total`; a weight of 0 is never chosen. `[B, K] -> [B]`"""
    cdf = weights.cumsum(dim=-1)
    total = cdf[:, -1]
    # uniform * total may round up to total, and then the search would run past the last token.
    below_total = torch.nextafter(total, torch.zeros_like(total))
    at = torch.minimum(uniforms * total, below_total)
    # clamp: a row of NaN finds no place, and its log-probability says so
    return torch.searchsorted(cdf, at[:, None], right=True)[:, 0].clamp_(max=weights.shape[-1] - 1)


def kept_weights(sorted_probs: Tensor, top_p: float) -> Tensor:
    """`sorted_probs` (descending) with everything outside the nucleus set to 0; the likeliest token always stays.

    A token is kept while the mass before it is below `top_p`, as in transformers. `[B, K] -> [B, K]`
    """
    mass_before = sorted_probs.cumsum(dim=-1) - sorted_probs
    keep = mass_before < top_p
    keep[:, 0] = True
    return torch.where(keep, sorted_probs, 0.0)


def _sample_truncated(scaled: Tensor, lse: Tensor, uniforms: Tensor, sampling: SamplingParams) -> Tensor:
    """Tokens of rows `scaled` [B, V] drawn from the top-k set and its nucleus, both renormalised."""
    vocab = scaled.shape[-1]
    width = min(sampling.top_k or PREFIX_WIDTH, vocab)
    values, indices = scaled.topk(width, dim=-1)
    norm = values.logsumexp(dim=-1) if sampling.top_k else lse
    probs = (values - norm[:, None]).exp()
    tokens = _draw(probs, indices, uniforms, sampling.top_p)
    if sampling.top_k or width == vocab:
        return tokens
    short = probs.sum(dim=-1) < sampling.top_p
    if short.any():  # the nucleus reaches beyond the prefix
        values, indices = scaled[short].sort(dim=-1, descending=True)
        probs = (values - lse[short, None]).exp()
        tokens[short] = _draw(probs, indices, uniforms[short], sampling.top_p)
    return tokens


def _draw(probs: Tensor, indices: Tensor, uniforms: Tensor, top_p: float) -> Tensor:
    place = invert_cdf(kept_weights(probs, top_p), uniforms)
    return indices.gather(-1, place[:, None])[:, 0]
