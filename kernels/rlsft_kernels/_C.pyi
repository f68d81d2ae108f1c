"""Types of the native core. A test compares the names here with those of the built module."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

# one overload for each in the module: all float arrays of a call have the same dtype
_Floats: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_Float64: TypeAlias = npt.NDArray[np.float64]
_Int64: TypeAlias = npt.NDArray[np.int64]

def bleu_scores(
    hypothesis_ids: _Int64,
    hypothesis_offsets: _Int64,  # [n + 1]
    reference_ids: _Int64,
    reference_offsets: _Int64,  # [references + 1]
    reference_groups: _Int64,  # [n + 1]
    max_order: int,
    smoothing: int,
    threads: int,
    scores: _Float64,  # [n], out
) -> None: ...
def build_info() -> dict[str, str]: ...
def cpu_isa() -> str: ...
def cuda_isodata(
    *,
    is_double: bool,
    points: int,  # [M, d]
    offsets: int,  # [G + 1] int64
    groups: int,
    d: int,
    rows: int,  # of the largest group
    start: int,  # [G, starts, d] float64, or 0
    starts: int,
    scores: int,  # [M] float64, or 0
    weight: int,  # [M] float64, or 0
    options: dict[str, Any],  # as in isodata()
    workspace: int,  # [blocks, doubles of cuda_isodata_workspace] float64
    blocks: int,
    labels: int,  # [M] int32, out
    centers: int,  # [M, d], out
    medoids: int,  # [M] int64, out
    counts: int,  # [G] int32, out
    steps: int,  # [G, max_iter, 4] int32, out
    n_steps: int,  # [G] int32, out
    stops: int,  # [G] int32, out
    stream: int,
) -> None: ...
def cuda_isodata_workspace(*, rows: int, starts: int, d: int, options: dict[str, Any]) -> tuple[int, int]: ...
def cuda_pagerank_strengths(
    *,
    n: int,
    pointers: int,  # [n + 1] int64
    weights32: int,  # [E], or 0
    weights64: int,  # [E], or 0
    sums: int,  # [n] float64, out
    stream: int,
) -> None: ...
def cuda_pagerank_sweeps(  # sweeps = 0: u, masses and progress from x alone
    *,
    n: int,
    segments: int,
    row_segments: int,  # [n + 1] int64
    segment_begin: int,  # [segments + 1] int64
    sources: int,  # [E] int32
    weights32: int,  # [E], or 0
    weights64: int,  # [E], or 0
    inverse: int,  # [n] float64
    teleport: int,  # [n] float64
    dangling: int,  # [n] float64
    x: int,  # [n] float64, in and out
    u: int,  # [n] float64
    partial: int,  # [segments] float64
    sums: int,  # [3, ceil(n / 256)] float64
    masses: int,  # [3] float64
    progress: int,  # [2] int64
    damping: float,
    tol: float,
    max_iter: int,
    sweeps: int,
    stream: int,
) -> None: ...
def cuda_textrank(  # addresses are those of device arrays; 0 is null
    *,
    is_double: bool,
    values: int,  # [M, d] rows; [sum of m^2] weights when d is 0
    d: int,
    offsets: int,  # [G + 1]
    block_offsets: int,  # [G + 1]
    groups: int,
    largest: int,  # rows of the largest group
    edge: int,
    teleport: int,  # [M] float64, or 0
    start: int,  # [M] float64, or 0
    damping: float,
    tol: float,
    max_iter: int,
    form: int,
    method: int,
    edges: int,  # [sum of m^2], scratch for groups of more than 64 rows
    matrix: int,  # [sum of m^2] float64, scratch for form 1
    scores: int,  # [M], out
    n_iter: int,  # [G] int64, out
    residual: int,  # [G] float64, out
    stream: int,
) -> None: ...
def flatten_token_lists(responses: Any) -> tuple[_Int64, _Int64] | None: ...  # ids, offsets
def gleu_scores(
    hypothesis_ids: _Int64,
    hypothesis_offsets: _Int64,  # [n + 1]
    reference_ids: _Int64,
    reference_offsets: _Int64,  # [references + 1]
    reference_groups: _Int64,  # [n + 1]
    min_order: int,
    max_order: int,
    threads: int,
    scores: _Float64,  # [n], out
) -> None: ...
def has_cuda() -> bool: ...
def isodata(
    points: _Floats,  # [N, d]
    offsets: _Int64,  # [G + 1]
    start: _Float64 | None,  # [sum of starting centres, d]
    start_offsets: _Int64 | None,  # [G + 1]
    scores: _Float64 | None,  # [N]
    weight: _Float64 | None,  # [N]
    options: dict[str, Any],  # every field of IsodataOptions
    threads: int,
    labels: npt.NDArray[np.int32],  # [N], out
) -> dict[str, Any]: ...  # centers, center_offsets, medoids, steps, step_offsets, stops, groups_by_gram, bad_group
def rank_and_cluster(
    points: _Floats,  # [N, d]
    offsets: _Int64,  # [G + 1]
    edge: int,
    teleport: _Float64 | None,  # [N]
    start: _Float64 | None,  # [N]
    damping: float,
    tol: float,
    max_iter: int,
    form: int,
    options: dict[str, Any],  # as in isodata
    threads: int,
    scores: _Floats,  # [N], out
    n_iter: _Int64,  # [G], out
    residual: _Float64,  # [G], out
    labels: npt.NDArray[np.int32],  # [N], out
) -> dict[str, Any]: ...  # as isodata
def keyword_rank(
    tokens: _Int64,
    keep: npt.NDArray[np.bool_] | None,  # [tokens]
    offsets: _Int64,  # [texts + 1]
    window: int,
    weighted: bool,
    directed: bool,
    damping: float,
    tol: float,
    max_iter: int,
    threads: int,
    ids: _Int64,  # [tokens], out
    scores: _Float64,  # [tokens], out
    counts: _Int64,  # [tokens], out
    words: _Int64,  # [texts], out
    n_iter: _Int64,  # [texts], out
    residual: _Float64,  # [texts], out
) -> None: ...
def rouge_l_scores(
    hypothesis_ids: _Int64,
    hypothesis_offsets: _Int64,  # [n + 1]
    reference_ids: _Int64,
    reference_offsets: _Int64,  # [references + 1]
    reference_groups: _Int64,  # [n + 1]
    threads: int,
    precision: _Float64,  # [n], out
    recall: _Float64,  # [n], out
    f1: _Float64,  # [n], out
) -> None: ...
def self_bleu_groups(
    tokens: _Int64,
    offsets: _Int64,  # [texts + 1]
    groups: _Int64,  # [G + 1]
    max_order: int,
    smoothing: int,
    threads: int,
    scores: _Float64,  # [texts], out
) -> None: ...
def narrow_ids(ids: _Int64, n: int, threads: int, out: npt.NDArray[np.int32]) -> int: ...  # -1, or the first bad one
def pagerank(
    n: int,
    order: int,  # 0 csr, 1 csc, 2 coo
    pointers: _Int64 | None,  # [n + 1]; None with coo
    starts: npt.NDArray[np.int32] | None,  # [E], coo alone
    ends: npt.NDArray[np.int32] | None,  # [E]
    weights32: npt.NDArray[np.float32] | None,  # [E]
    weights64: _Float64 | None,  # [E]
    teleport: _Float64 | None,  # [n]
    dangling: _Float64 | None,  # [n]
    start: _Float64 | None,  # [n]
    damping: float,
    tol: float,
    max_iter: int,
    method: int,  # 0 gauss_seidel, 1 jacobi
    threads: int,
    scores: _Float64,  # [n], out
) -> dict[str, Any]: ...  # fault, position, n_iter, residual, build_ms, sweep_ms
def isodata_assign(  # the assignment step alone, `passes` times: for tests and benches
    points: _Floats,  # [n, d]
    centers: _Float64,  # [k, d]
    threads: int,
    passes: int,
    with_squares: bool,
    labels: npt.NDArray[np.int32],  # [n], out
    sums: _Float64,  # [k, 2, d], out: of (x - c) and of its squares
) -> int: ...  # rows decided by float64 distances
def similarity_groups(
    rows: _Floats,  # [M, d]
    offsets: _Int64,  # [G + 1]
    edge: int,
    threads: int,
    edges: _Floats,  # [sum of m^2], out
    ok: npt.NDArray[np.bool_],  # [G], out
) -> None: ...
def text_edges_groups(
    tokens: _Int64,
    token_offsets: _Int64,  # [responses + 1]
    group_offsets: _Int64,  # [G + 1]
    kind: int,
    threads: int,
    edges: _Float64,  # [sum of m^2], out
) -> None: ...
def textrank_dense(
    weights: _Floats,  # [sum of m^2]
    offsets: _Int64,  # [G + 1]
    teleport: _Float64 | None,  # [M]
    start: _Float64 | None,  # [M]
    damping: float,
    tol: float,
    max_iter: int,
    form: int,
    method: int,  # 0 auto, 1 gauss_seidel, 2 jacobi
    threads: int,
    scores: _Floats,  # [M], out
    n_iter: _Int64,  # [G], out
    residual: _Float64,  # [G], out
) -> None: ...
def textrank_embeddings(
    rows: _Floats,  # [M, d]
    offsets: _Int64,  # [G + 1]
    edge: int,
    teleport: _Float64 | None,  # [M]
    start: _Float64 | None,  # [M]
    damping: float,
    tol: float,
    max_iter: int,
    form: int,
    method: int,  # 0 auto, 1 gauss_seidel, 2 jacobi
    threads: int,
    scores: _Floats,  # [M], out
    n_iter: _Int64,  # [G], out
    residual: _Float64,  # [G], out
) -> None: ...
def torch_team_library() -> str: ...
def head_fold_rows(
    tile: npt.NDArray[Any],
    column_start: int,
    targets: npt.NDArray[Any],
    bias: npt.NDArray[Any] | None,
    logit_scale: float,
    softcap: float,
    temperature: float,
    temperatures: npt.NDArray[Any] | None,
    row_max: npt.NDArray[Any],
    sum_exp: npt.NDArray[Any],
    target_logit: npt.NDArray[Any],
    sum_exp_shifted: npt.NDArray[Any] | None,
    sum_exp_sq: npt.NDArray[Any] | None,
    sum_logit: npt.NDArray[Any] | None,
    first_largest: npt.NDArray[Any] | None,
    threads: int,
) -> None: ...
def head_gradient_rows(
    tile: npt.NDArray[Any],
    column_start: int,
    bias: npt.NDArray[Any] | None,
    logit_scale: float,
    softcap: float,
    temperature: float,
    temperatures: npt.NDArray[Any] | None,
    targets: npt.NDArray[Any],
    row_max: npt.NDArray[Any],
    log_sum: npt.NDArray[Any],
    logprob: npt.NDArray[Any],
    entropy: npt.NDArray[Any] | None,
    by_logprob: npt.NDArray[Any] | None,
    by_entropy: npt.NDArray[Any] | None,
    by_lse: npt.NDArray[Any] | None,
    order: npt.NDArray[Any] | None,
    out: npt.NDArray[Any],
    threads: int,
) -> None: ...

_Values: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.uint16]  # uint16: bfloat16
_Bytes: TypeAlias = npt.NDArray[np.uint8]
_Float32: TypeAlias = npt.NDArray[np.float32]

def kl_shaped_gae(
    scores: _Values,  # [B], or [N] with has_token_scores
    logprobs: _Values | None,  # [N]; needed with ref_logprobs
    ref_logprobs: _Values | None,  # [N]
    values: _Values,  # [N]
    mask: _Bytes,  # [N]
    bootstrap_values: _Float32 | None,  # [B]
    offsets: _Int64,  # [B + 1]
    has_token_scores: bool,
    kl_coef: float,
    kl_estimator: int,
    gamma: float,
    lam: float,
    whiten: bool,
    threads: int,
    advantages: _Float32,  # [N], out
    returns: _Float32,  # [N], out
    moments: _Float32,  # [2], out
    statistics: _Float32,  # [13], out
) -> None: ...
def pair_loss(
    delta_real: _Values,  # [P]
    delta_generated: _Values,  # [P]
    mask: _Bytes | None,  # [P]
    normalizer: float | None,
    kind: int,
    beta: float,
    offset: float,
    label_smoothing: float,
    threads: int,
    grad_real: _Float32,  # [P], out
    grad_generated: _Float32,  # [P], out
    statistics: _Float32,  # [7], out
) -> float: ...
def pairwise_reward_loss(
    chosen: _Values,  # [P]
    rejected: _Values,  # [P]
    margin: _Values | None,  # [P]
    center_coef: float,
    threads: int,
    grad_chosen: _Float32,  # [P], out
    grad_rejected: _Float32,  # [P], out
    statistics: _Float32,  # [7], out
) -> float: ...
def policy_value_loss(
    logprobs: _Values,  # [N], as all of these
    old_logprobs: _Values,
    advantages: _Values,
    values: _Values | None,
    old_values: _Values | None,
    returns: _Values | None,
    entropy: _Values | None,
    ref_logprobs: _Values | None,
    mask: _Bytes,
    advantage_mean: float,
    advantage_scale: float,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
    value_clip: float | None,
    vf_coef: float,
    entropy_coef: float,
    kl_coef: float,
    kl_estimator: int,
    threads: int,
    grad_logprobs: _Float32,  # out
    grad_values: _Float32 | None,  # out
    grad_entropy: _Float32 | None,  # out
    statistics: _Float32,  # [14], out
) -> float: ...
def outer_product_isa() -> str: ...
def accumulate_outer(
    grad: npt.NDArray[Any], hidden: npt.NDArray[Any], out: npt.NDArray[Any], overwrite: bool, threads: int
) -> None: ...
def add_product(sum: npt.NDArray[Any], product: npt.NDArray[Any], threads: int) -> None: ...
