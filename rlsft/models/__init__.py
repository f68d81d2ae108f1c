"""A causal LM as trunk + head: loading, padding, log-probabilities, LoRA, dropout, memory estimates."""

from __future__ import annotations

from rlsft.models.estimate import TrainingEstimate, estimate_training, meta_causal_lm
from rlsft.models.forward import completion_logprobs, hidden_states, position_ids_of
from rlsft.models.head import LmHead, causal_lm_of, check_lm_head, lm_head_of, trunk_of, unwrap
from rlsft.models.loading import load_causal_lm, load_tokenizer, resolve_dtype
from rlsft.models.lora import add_lora, is_lora, load_policy, merge_lora, without_adapter
from rlsft.models.memory import freed_memory_kept, release_freed_memory
from rlsft.models.modes import disable_dropout, evaluation_mode
from rlsft.models.token_logprobs import token_logprobs

__all__ = [
    "LmHead",
    "TrainingEstimate",
    "add_lora",
    "causal_lm_of",
    "check_lm_head",
    "completion_logprobs",
    "disable_dropout",
    "estimate_training",
    "evaluation_mode",
    "freed_memory_kept",
    "hidden_states",
    "is_lora",
    "lm_head_of",
    "load_causal_lm",
    "load_policy",
    "load_tokenizer",
    "merge_lora",
    "meta_causal_lm",
    "position_ids_of",
    "release_freed_memory",
    "resolve_dtype",
    "token_logprobs",
    "trunk_of",
    "unwrap",
    "without_adapter",
]
