"""Self-supervised text ranking: encoders, TextRank + ISODATA, noise, pairs, explanations."""

from typing import TYPE_CHECKING, Any

from rlsft.ranking.agreement import agreement_with_second_reply
from rlsft.ranking.encoders import (
    CachedEncoder,
    Encoder,
    FunctionEncoder,
    TransformerEncoder,
    load_encoder,
)
from rlsft.ranking.explain import Explanation
from rlsft.ranking.keywords import keywords
from rlsft.ranking.noise import NOISE_KINDS, add_noise
from rlsft.ranking.pipeline import rank_responses
from rlsft.ranking.rank_file import rank_file, read_candidates
from rlsft.ranking.render import render, render_agreement
from rlsft.ranking.results import RankedResponses
from rlsft.ranking.sentences import RankedSentence, rank_sentences, summarize

if TYPE_CHECKING:
    from rlsft.ranking.isodata import ISODATA

__all__ = [
    "ISODATA",
    "NOISE_KINDS",
    "CachedEncoder",
    "Encoder",
    "Explanation",
    "FunctionEncoder",
    "RankedResponses",
    "RankedSentence",
    "TransformerEncoder",
    "add_noise",
    "agreement_with_second_reply",
    "keywords",
    "load_encoder",
    "rank_file",
    "rank_responses",
    "rank_sentences",
    "read_candidates",
    "render",
    "render_agreement",
    "summarize",
]


def __getattr__(name: str) -> Any:
    """The estimator is loaded when it is first used."""
    if name == "ISODATA":
        from rlsft.ranking.isodata import ISODATA

        return ISODATA
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
