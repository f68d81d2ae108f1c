"""The op library of rlsft: fused ops for fine-tuning with learned rewards. Needs torch and NumPy alone."""

from __future__ import annotations

from rlsft_kernels.isodata.op import isodata
from rlsft_kernels.isodata.result import IsodataHistory, IsodataResult
from rlsft_kernels.keyword_rank.op import KeywordRankResult, keyword_rank
from rlsft_kernels.kl_shaped_gae.op import GaeOutput, kl_shaped_gae
from rlsft_kernels.linear_cross_entropy.op import linear_cross_entropy
from rlsft_kernels.linear_logprob.op import linear_logprob
from rlsft_kernels.linear_logprob.reference import LogprobOutput
from rlsft_kernels.linear_logprob.vocab_parallel import vocab_parallel_linear_logprob
from rlsft_kernels.linear_pair_loss.op import linear_pair_loss
from rlsft_kernels.linear_policy_loss.op import linear_policy_loss
from rlsft_kernels.logprob_from_logits.op import logprob_from_logits
from rlsft_kernels.pagerank.op import pagerank
from rlsft_kernels.pagerank.result import PagerankResult
from rlsft_kernels.pair_loss.op import pair_loss
from rlsft_kernels.pairwise_reward_loss.op import pairwise_reward_loss
from rlsft_kernels.policy_value_loss.op import policy_value_loss
from rlsft_kernels.ppo_chain.op import ppo_chain
from rlsft_kernels.rank_and_cluster.op import RankAndClusterResult, rank_and_cluster
from rlsft_kernels.similarity.op import similarity_matrix
from rlsft_kernels.text_scores.op import RougeLScores, bleu_scores, gleu_scores, rouge_l_scores, self_bleu_groups
from rlsft_kernels.textrank.op import textrank
from rlsft_kernels.textrank.result import ConvergenceError, TextRankResult

__all__ = [
    "ConvergenceError",
    "GaeOutput",
    "IsodataHistory",
    "IsodataResult",
    "KeywordRankResult",
    "LogprobOutput",
    "PagerankResult",
    "RankAndClusterResult",
    "RougeLScores",
    "TextRankResult",
    "bleu_scores",
    "gleu_scores",
    "isodata",
    "keyword_rank",
    "kl_shaped_gae",
    "linear_cross_entropy",
    "linear_logprob",
    "linear_pair_loss",
    "linear_policy_loss",
    "logprob_from_logits",
    "pagerank",
    "pair_loss",
    "pairwise_reward_loss",
    "policy_value_loss",
    "ppo_chain",
    "rank_and_cluster",
    "rouge_l_scores",
    "self_bleu_groups",
    "similarity_matrix",
    "textrank",
    "vocab_parallel_linear_logprob",
]
