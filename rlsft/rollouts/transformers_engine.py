"""Completions from a transformers model in this process, on any device.

Why not `model.generate`: it prefills a prompt once for each of its samples, keeps computing rows that have ended,
and sorts the whole vocabulary at every step of nucleus sampling. The loop below prefills a prompt once, drops ended
rows and looks at the likeliest tokens first; greedy results are those of `generate` (tests/rollouts).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlsft.data.templates import end_token_ids, has_template
from rlsft.errors import ConfigError, DataError, ModelError, RunError
from rlsft.models import causal_lm_of, evaluation_mode, position_ids_of
from rlsft.rollouts.sampler import sample_tokens, uniforms_of
from rlsft.rollouts.sampling import Completion, SamplingParams

# Dropping rows copies the KV cache once, as every decoding step does anyway; wait until it pays.
DROP_FRACTION = 0.125


class TransformersEngine:
    """Draws completions with the weights that `model` has at the moment of the call.

    Args:
        model: a causal LM, plain or with a LoRA adapter.
        tokenizer: gives the padding token and, with the model's generation config, the default stop tokens.
        batch_size: sequences decoded together; the samples of one prompt share a batch.
        stop_token_ids: tokens that end a completion and belong to it. None: those of the tokenizer, of its
            chat template and of the model's generation config.
        on_progress: called with (finished sequences, all sequences) after every batch.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        batch_size: int = 64,
        stop_token_ids: Iterable[int] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be >= 1 sequences, got {batch_size}")
        self.model = model
        self.batch_size = batch_size
        self.stop_token_ids = _stop_token_ids(model, tokenizer) if stop_token_ids is None else sorted(stop_token_ids)
        self.pad_token_id = 0 if tokenizer is None or tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.on_progress = on_progress

    @torch.no_grad()
    def generate(
        self, prompt_ids: list[list[int]], sampling: SamplingParams, num_samples: int = 1
    ) -> list[list[Completion]]:
        """Draw `num_samples` completions for each prompt; see `RolloutEngine.generate`.

        The model is in eval mode with its cache on and checkpointing off meanwhile, and as it was afterwards,
        whatever happens. Equal `sampling` and weights give equal completions, whatever `batch_size` is, up to the
        rounding of differently shaped matrix products.

        Raises:
            DataError: an empty prompt, or one that leaves no room in the model's context.
            RunError: the model's logits are not finite.
        """
        if num_samples < 1:
            raise ConfigError(f"num_samples must be >= 1, got {num_samples}")
        self._check_prompts(prompt_ids, sampling.max_new_tokens)
        uniforms = uniforms_of(sampling, len(prompt_ids), num_samples)
        results: list[list[Completion | None]] = [[None] * num_samples for _ in prompt_ids]
        done, total = 0, len(prompt_ids) * num_samples
        with evaluation_mode(self.model):
            for indices in self._buckets(prompt_ids, num_samples):
                for samples, completions in self._draw(prompt_ids, indices, uniforms, sampling, num_samples):
                    for (index, sample), completion in zip(samples, completions, strict=True):
                        results[index][sample] = completion
                    done += len(samples)
                    if self.on_progress is not None:
                        self.on_progress(done, total)
        return results  # type: ignore[return-value]  # every place was filled above

    def _check_prompts(self, prompt_ids: list[list[int]], max_new_tokens: int) -> None:
        context = _context_length(self.model)
        for index, ids in enumerate(prompt_ids):
            if not ids:
                raise DataError(f"prompt_ids[{index}] is empty: a completion needs at least one token to start from")
            if context is not None and len(ids) + max_new_tokens > context:
                raise DataError(
                    f"prompt_ids[{index}] has {len(ids)} tokens, and with max_new_tokens={max_new_tokens} that exceeds "
                    f"the model's context of {context} tokens. Shorten the prompt or lower max_new_tokens."
                )

    def _buckets(self, prompt_ids: list[list[int]], num_samples: int) -> Iterator[list[int]]:
        """Prompt indices, shortest first, in groups whose samples fill a batch: little padding."""
        size = max(1, self.batch_size // num_samples)
        order = sorted(range(len(prompt_ids)), key=lambda index: len(prompt_ids[index]))
        return (order[start : start + size] for start in range(0, len(order), size))

    def _draw(
        self,
        prompt_ids: list[list[int]],
        indices: list[int],
        uniforms: Tensor,
        sampling: SamplingParams,
        num_samples: int,
    ) -> Iterator[tuple[list[tuple[int, int]], list[Completion]]]:
        """Prefill the prompts once, then decode their samples, at most `batch_size` sequences together."""
        device = next(self.model.parameters()).device
        ids, mask = pad_left([prompt_ids[index] for index in indices], self.pad_token_id, device)
        prefilled = _Prefilled(mask, *_forward(self.model, ids, mask, position_ids_of(mask), None))
        per_batch = max(1, min(num_samples, self.batch_size))
        for first in range(0, num_samples, per_batch):
            chunk = range(first, min(first + per_batch, num_samples))
            state = prefilled.repeated(len(chunk), is_last=chunk.stop == num_samples)
            rows_u = uniforms[indices, chunk.start : chunk.stop].flatten(0, 1).to(device)
            samples = [(index, sample) for index in indices for sample in chunk]
            yield samples, self._decode(state, rows_u, sampling)

    def _decode(self, state: _Prefilled, uniforms: Tensor, sampling: SamplingParams) -> list[Completion]:
        """Continue every row of the prefilled `state` until its stop token or `max_new_tokens`."""
        stops = torch.tensor(self.stop_token_ids, device=uniforms.device, dtype=torch.long)
        mask, logits, cache = state.mask, state.logits, state.cache
        rows = torch.arange(len(uniforms), device=uniforms.device)  # where each live row stands in the results
        live = torch.ones_like(rows, dtype=torch.bool)
        tokens_of: list[list[int]] = [[] for _ in rows]
        logps_of: list[list[float]] = [[] for _ in rows]
        for step in range(sampling.max_new_tokens):
            tokens, logps = sample_tokens(logits, uniforms[rows, step], sampling)
            _append(tokens_of, logps_of, rows[live], tokens[live], logps[live])
            live = live & ~torch.isin(tokens, stops)
            num_ended = int((~live).sum())
            if num_ended == len(rows) or step + 1 == sampling.max_new_tokens:
                break
            if num_ended >= DROP_FRACTION * len(rows):
                keep = live.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                rows, mask, tokens, live = rows[keep], mask[keep], tokens[keep], live[keep]
            positions = mask.sum(dim=-1, keepdim=True)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
            logits, cache = _forward(self.model, tokens[:, None], mask, positions, cache)
        return [self._completion(*pair) for pair in zip(tokens_of, logps_of, strict=True)]

    def _completion(self, tokens: list[int], logprobs: list[float]) -> Completion:
        stopped = tokens[-1] in self.stop_token_ids
        return Completion(token_ids=tokens, finish_reason="stop" if stopped else "length", logprobs=logprobs)


@dataclass
class _Prefilled:
    """Prompts after their one forward pass: everything that decoding continues from."""

    mask: Tensor  # [P, T] int64
    logits: Tensor  # [P, V], of the token after the prompt
    cache: Any  # transformers.Cache

    def repeated(self, times: int, *, is_last: bool) -> _Prefilled:
        """Each prompt `times` times in a row; the last use may consume the cache instead of copying it."""
        cache = self.cache if is_last else copy.deepcopy(self.cache)
        if times > 1:
            cache.batch_repeat_interleave(times)
        return _Prefilled(self.mask.repeat_interleave(times, 0), self.logits.repeat_interleave(times, 0), cache)


def pad_left(sequences: list[list[int]], pad_token_id: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """`sequences` as one left-padded batch: ids [B, T] and attention mask [B, T], both int64."""
    width = max(len(ids) for ids in sequences)
    ids = [[pad_token_id] * (width - len(row)) + row for row in sequences]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _forward(model: nn.Module, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Logits [B, V] after the last token, and the cache with `ids` added."""
    signature = inspect.signature(causal_lm_of(model).forward).parameters
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
    if "position_ids" in signature:
        inputs["position_ids"] = positions
    if "logits_to_keep" in signature:
        inputs["logits_to_keep"] = 1  # a prompt's other logits would be [B, T, V]
    output = model(**inputs)
    return output.logits[:, -1], output.past_key_values


def _append(
    tokens_of: list[list[int]], logps_of: list[list[float]], rows: Tensor, tokens: Tensor, logps: Tensor
) -> None:
    if not bool(logps.isfinite().all()):
        raise RunError(
            "the policy's logits are NaN or infinite while drawing completions: its weights are broken. "
            "Go back to an earlier checkpoint, lower learning_rate, or use a wider dtype."
        )
    for row, token, logp in zip(rows.tolist(), tokens.tolist(), logps.tolist(), strict=True):
        tokens_of[row].append(token)
        logps_of[row].append(logp)


def _stop_token_ids(model: nn.Module, tokenizer: Any) -> list[int]:
    """End tokens of the tokenizer, its chat template and the model's generation config, which may name several."""
    config = getattr(causal_lm_of(model), "generation_config", None)
    ids = getattr(config, "eos_token_id", None)
    stops = set(ids if isinstance(ids, (list, tuple)) else [ids])
    stops.discard(None)
    if tokenizer is not None and (tokenizer.eos_token_id is not None or has_template(tokenizer)):
        stops |= set(end_token_ids(tokenizer))
    if not stops:
        raise ModelError(
            "neither the tokenizer nor the model's generation config names an end token, so no completion would ever "
            "stop; pass stop_token_ids=[...] (an empty list draws until max_new_tokens)"
        )
    return sorted(stops)


def _context_length(model: nn.Module) -> int | None:
    config = causal_lm_of(model).config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(config, "max_position_embeddings", None)  # GPT-2's n_positions answers to this name too
