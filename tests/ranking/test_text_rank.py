"""rank_sentences, summarize and keywords: by hand, against networkx and summa, short texts and Japanese."""

from __future__ import annotations

import math

import networkx as nx
import pytest

from rlsft.errors import ConfigError
from rlsft.ranking import keywords, rank_sentences, summarize

FOUR = "Cats chase mice. Mice eat cheese daily. Dogs chase cats. Rain falls."


def test_four_sentences_by_hand() -> None:
    # shared words: mice (0, 1), chase and cats (0, 2); the last sentence shares none. Lengths 3, 4, 3, 2.
    graph = nx.Graph()
    graph.add_nodes_from(range(4))
    graph.add_edge(0, 1, weight=1 / (math.log(3) + math.log(4)))
    graph.add_edge(0, 2, weight=2 / (2 * math.log(3)))
    expected = nx.pagerank(graph, tol=1e-13, max_iter=1000)
    ranked = rank_sentences(FOUR)
    assert [s.index for s in ranked] == [0, 1, 2, 3]
    assert [s.score for s in ranked] == pytest.approx([expected[i] for i in range(4)], abs=1e-9)
    # x_3 = (1 - a) / 4 + a x_3 / 4, alone and without edges
    assert ranked[3].score == pytest.approx(0.0375 / (1 - 0.2125), abs=1e-9)
    assert summarize(FOUR, top=2) == "Cats chase mice. Dogs chase cats."


def test_short_and_empty_texts() -> None:
    assert rank_sentences("") == rank_sentences(" \n") == keywords("") == []
    assert summarize("") == ""
    (only,) = rank_sentences("Just one sentence here.")
    assert (only.index, only.text, only.score) == (0, "Just one sentence here.", 1.0)
    assert keywords("of the and") == keywords("12 ... !") == []
    assert keywords("hello") == [("hello", 1.0)]
    assert [s.score for s in rank_sentences("The. And. !")] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("edge", ["word_overlap", "bm25"])
def test_identical_sentences_are_all_kept(edge: str) -> None:
    ranked = rank_sentences("Snow covers hills. " * 3, edge=edge)
    assert [s.score for s in ranked] == [ranked[0].score] * 3
    assert ranked[0].score == pytest.approx(1 / 3)
    assert [s.index for s in rank_sentences("Snow covers hills. " * 3, edge=edge, top=2)] == [0, 1]


def test_summa_agrees_on_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    summarizer = pytest.importorskip("summa.summarizer")
    module = pytest.importorskip("summa.pagerank_weighted")
    monkeypatch.setattr(module, "CONVERGENCE_THRESHOLD", 1e-13)
    sentences = ["cats chase mice", "mice eat cheese daily", "dogs chase cats", "cheese tastes good daily"]
    graph = summarizer._build_graph(sentences)
    summarizer._set_graph_edge_weights(graph)
    expected = module.pagerank_weighted(graph)
    ranked = rank_sentences(". ".join(s.capitalize() for s in sentences) + ".", stop_words=())
    assert [4 * s.score for s in ranked] == pytest.approx([expected[s] for s in sentences], abs=1e-6)


def test_japanese() -> None:
    text = "人工知能の研究が進む。人工知能は医療を変える。昨日はラーメンを食べた。医療の研究に人工知能を使う。"
    ranked = rank_sentences(text, language="ja")
    assert len(ranked) == 4
    assert min(ranked, key=lambda s: s.score).index == 2
    assert summarize(text, language="ja", top=1) in text
    found = keywords(text, language="ja")
    assert found[0][0].startswith("人工知能")


def test_keywords_by_hand() -> None:
    # red - fox - hunts, then green: a path of content words; "the" keeps hunts and green apart
    text = "red fox hunts the green"
    every = dict(keywords(text, share=1.0))
    assert set(every) == {"red fox hunts", "green"}
    best = keywords(text, share=0.25)
    assert [phrase for phrase, _ in best] == ["fox"]
    wider = dict(keywords(text, share=1.0, window=3))  # hunts and green now stand in one window
    assert wider["green"] > every["green"]
    assert keywords(text, share=1.0, top=1) == keywords(text, share=1.0)[:1]
    assert "the green" in " ".join(phrase for phrase, _ in keywords(text, share=1.0, stop_words=()))


def test_bad_arguments_are_named() -> None:
    for call in (rank_sentences, keywords):
        with pytest.raises(ConfigError, match="top must be None"):
            call("a", top=0)
        with pytest.raises(ConfigError, match="stop_words must be a collection"):
            call("a", stop_words="the")
        with pytest.raises(ConfigError, match="language must be one of"):
            call("a", language="xx")
    with pytest.raises(ConfigError, match="edge must be one of"):
        rank_sentences("a", edge="cosine")
    with pytest.raises(ValueError, match="share must be above 0"):
        keywords("a", share=0)
