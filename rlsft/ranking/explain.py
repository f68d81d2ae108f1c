"""Why an answer has its rank: the exact parts of its score, its neighbours, its cluster, in words and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlsft.errors import DataError
from rlsft.ranking.clustering import NO_CLUSTER, Clusters
from rlsft.ranking.features import Features
from rlsft.ranking.inputs import Candidates
from rlsft.ranking.scoring import GraphSettings, edge_blocks

NUM_NEIGHBOURS = 3


class Explanation(NamedTuple):
    """The reason for one rank: sentences for people and the same facts as a JSON object."""

    text: str
    json: dict[str, Any]

    def __str__(self) -> str:
        return self.text


class Parts(NamedTuple):
    """What the score of one answer is made of; `base + from_answers.sum() + dangling` is the score."""

    base: float  # teleport share (1 - d) * v_i; in the eigenvector form the constant of Katz, usually 0
    from_answers: NDArray[np.float64]  # [m] d * P_ji * W_j, what each other answer passes on
    dangling: float  # share of what answers without any edge pass on


def stochastic_parts(
    edges: NDArray[np.float64],  # [m, m], from row to column
    scores: NDArray[np.float64],  # [m], sum 1
    teleport: NDArray[np.float64],  # [m], sum 1
    damping: float,
    index: int,
) -> Parts:
    """`W_i = (1-d) v_i + d sum_j P_ji W_j + d v_i sum_{j without edges} W_j`, the update at its fixed point."""
    strength = edges.sum(axis=1)
    is_dangling = strength == 0
    share = edges[:, index] / np.where(is_dangling, 1.0, strength)
    return Parts(
        base=float((1 - damping) * teleport[index]),
        from_answers=damping * share * scores,
        dangling=float(damping * teleport[index] * scores[is_dangling].sum()),
    )


def eigenvector_parts(edges: NDArray[np.float64], scores: NDArray[np.float64], damping: float, index: int) -> Parts:
    """`W_i = sum_j S_ji W_j / rho`, or `constant + d sum_j S_ji W_j` (Katz) where `d * rho <= 1`."""
    radius = float(np.abs(np.linalg.eigvals(edges)).max())
    factor = 1.0 / radius if damping * radius > 1 else damping
    from_answers = factor * edges[:, index] * scores
    return Parts(base=float(scores[index] - from_answers.sum()), from_answers=from_answers, dangling=0.0)


@dataclass(frozen=True, kw_only=True)
class Explainer:
    """Everything that one ranking was made of, kept to explain any of its ranks."""

    candidates: Candidates
    features: Features
    settings: GraphSettings
    clusters: Clusters
    scores: NDArray[np.float64]  # [S]
    ranks: NDArray[np.int64]  # [S]
    teleport: NDArray[np.float64]  # [S]
    cosine_ranks: NDArray[np.int64]  # [S]

    def __call__(self, prompt_index: int, response_index: int) -> Explanation:
        rows, index = self._locate(prompt_index, response_index)
        facts = self._facts(rows, index)
        return Explanation(_sentences(facts), facts)

    def _locate(self, prompt_index: int, response_index: int) -> tuple[slice, int]:
        offsets = self.candidates.offsets
        if not 0 <= prompt_index < len(offsets) - 1:
            raise DataError(f"prompt_index must be 0 to {len(offsets) - 2}, got {prompt_index}")
        rows = slice(int(offsets[prompt_index]), int(offsets[prompt_index + 1]))
        known = self.candidates.response_index[rows].tolist()
        if response_index not in known:
            raise DataError(
                f"prompt {prompt_index} has no ranked response {response_index}: ranked are {known} "
                f"(empty responses are not ranked)"
            )
        return rows, known.index(response_index)

    def _facts(self, rows: slice, index: int) -> dict[str, Any]:
        at = rows.start + index
        edges = self._edges(rows)
        parts = self._parts(rows, edges, index)
        cosines = self.features.vectors[rows] @ self.features.vectors[at]
        cosine = self.features.cosine[at]
        has_one = not np.isnan(cosine)
        return {
            "prompt_index": int(self.candidates.prompt_index[at]),
            "response_index": int(self.candidates.response_index[at]),
            "rank": int(self.ranks[at]),
            "answers": rows.stop - rows.start,
            "score": float(self.scores[at]),
            "form": self.settings.form,
            "edge": self.features.edge,
            "teleport_to_demonstration": bool(has_one and self.settings.teleports),
            "parts": self._named_parts(parts, edges, rows, index),
            "nearest": self._nearest(cosines, rows, index),
            "cluster": self._cluster_facts(rows, at),
            "cosine_to_demonstration": float(cosine) if has_one else None,
            "cosine_rank": int(self.cosine_ranks[at]) if has_one else None,
        }

    @cached_property
    def _blocks(self) -> NDArray[np.float64]:
        """All edges, made in one call when the first explanation is asked for."""
        return edge_blocks(self.features, self.candidates.offsets, self.settings.backend)

    def _edges(self, rows: slice) -> NDArray[np.float64]:
        """[m, m] edges of the prompt whose answers are `rows`."""
        sizes = np.diff(self.candidates.offsets)
        m = rows.stop - rows.start
        start = int((sizes[: self.candidates.prompt_index[rows.start]] ** 2).sum())
        return self._blocks[start : start + m * m].reshape(m, m)

    def _parts(self, rows: slice, edges: NDArray[np.float64], index: int) -> Parts:
        scores, damping = self.scores[rows], self.settings.damping
        if self.settings.form == "eigenvector":
            return eigenvector_parts(edges, scores, damping, index)
        return stochastic_parts(edges, scores, self.teleport[rows], damping, index)

    def _named_parts(self, parts: Parts, edges: NDArray[np.float64], rows: slice, index: int) -> dict[str, Any]:
        order = np.argsort(-parts.from_answers, kind="stable")
        givers = [j for j in order[:NUM_NEIGHBOURS].tolist() if parts.from_answers[j] > 0]
        return {
            "base": parts.base,
            "neighbours": [
                {
                    "response_index": int(self.candidates.response_index[rows.start + j]),
                    "rank": int(self.ranks[rows.start + j]),
                    "edge": float(edges[j, index]),
                    "contribution": float(parts.from_answers[j]),
                }
                for j in givers
            ],
            "other_answers": float(parts.from_answers.sum() - parts.from_answers[givers].sum()),
            "answers_without_edges": parts.dangling,
        }

    def _nearest(self, cosines: NDArray[np.float64], rows: slice, index: int) -> list[dict[str, Any]]:
        order = [j for j in np.argsort(-np.round(cosines, 9), kind="stable").tolist() if j != index]
        return [
            {
                "response_index": int(self.candidates.response_index[rows.start + j]),
                "cosine": float(min(1.0, cosines[j])),
            }
            for j in order[:NUM_NEIGHBOURS]
        ]

    def _cluster_facts(self, rows: slice, at: int) -> dict[str, Any]:
        clusters = self.clusters
        label = int(clusters.label[at])
        members = rows.start + np.flatnonzero(clusters.label[rows] == label)
        if label == NO_CLUSTER:
            members = np.array([at])
        medoids = members[clusters.representative[members]]
        medoid = int(medoids[0]) if len(medoids) else None
        return {
            "label": label,
            "size": len(members),
            "members": self.candidates.response_index[members].tolist(),
            "representative": bool(clusters.representative[at]),
            "representative_index": None if medoid is None else int(self.candidates.response_index[medoid]),
            "distance_to_centre": float(clusters.center_distance[at]),
            "reason": self._reason(at, medoid, len(members)),
        }

    def _reason(self, at: int, medoid: int | None, size: int) -> str:
        if medoid is None:
            return "it was discarded as noise, so it stands for no cluster"
        if size == 1:
            return "it represents its cluster because it is alone in it"
        distance = self.clusters.center_distance
        if at == medoid:
            return f"it represents its cluster because no member is nearer to the centre ({distance[at]:.3f})"
        other = int(self.candidates.response_index[medoid])
        if distance[at] <= distance[medoid] + 1e-6:
            why = "as near to the centre, and its score is higher or equal"
        else:
            why = f"nearer to the centre ({distance[medoid]:.3f} against {distance[at]:.3f})"
        return f"answer {other} represents the cluster instead: it is {why}"


def _sentences(facts: dict[str, Any]) -> str:
    parts, cluster = facts["parts"], facts["cluster"]
    lines = [
        f"Answer {facts['response_index']} is ranked {facts['rank']} of {facts['answers']}, score {facts['score']:.4f}."
    ]
    if facts["cosine_to_demonstration"] is not None:
        lines.append(
            f"Its cosine to the demonstration is {facts['cosine_to_demonstration']:.3f}; "
            f"by that alone it would be ranked {facts['cosine_rank']}."
        )
    source = "its closeness to the demonstration" if facts["teleport_to_demonstration"] else "the even share of all"
    given = [
        f"answer {one['response_index']} gives {one['contribution']:.4f} (edge {one['edge']:.3f})"
        for one in parts["neighbours"]
    ]
    rest = [f"the other answers {parts['other_answers']:.4f}"] if parts["other_answers"] > 5e-5 else []
    if parts["answers_without_edges"]:
        rest.append(f"answers that share no edge {parts['answers_without_edges']:.4f}")
    lines.append(f"The score is {parts['base']:.4f} from {source}; " + ", ".join(given + rest) + ".")
    if facts["nearest"]:
        near = ", ".join(f"{one['response_index']} (cosine {one['cosine']:.3f})" for one in facts["nearest"])
        lines.append(f"Nearest answers: {near}.")
    lines.append(
        f"Cluster {cluster['label']} has {cluster['size']} of the {facts['answers']} answers; {cluster['reason']}."
    )
    return " ".join(lines)
