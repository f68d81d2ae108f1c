"""Files and packages to typed examples: loading, formats, templates, masks, collators, preview."""

from __future__ import annotations

from rlsft.data.collators import DemonstrationCollator, PairCollator, PromptCollator
from rlsft.data.columns import parse_column_map
from rlsft.data.dataset import EncodingReport, encode_dataset
from rlsft.data.dry_run import Preview, preview
from rlsft.data.encoding import Encoded, encode, encode_demonstration, encode_pair, encode_prompt
from rlsft.data.formats import (
    as_demonstrations,
    completion_text,
    demonstration_of,
    detect_format,
    preference_of,
    prompt_text,
    require_columns,
)
from rlsft.data.loading import load_examples
from rlsft.data.splits import split_by_group, split_of
from rlsft.data.templates import end_token_ids

__all__ = [
    "DemonstrationCollator",
    "Encoded",
    "EncodingReport",
    "PairCollator",
    "Preview",
    "PromptCollator",
    "as_demonstrations",
    "completion_text",
    "demonstration_of",
    "detect_format",
    "encode",
    "encode_dataset",
    "encode_demonstration",
    "encode_pair",
    "encode_prompt",
    "end_token_ids",
    "load_examples",
    "parse_column_map",
    "preference_of",
    "preview",
    "prompt_text",
    "require_columns",
    "split_by_group",
    "split_of",
]
