"""Bad input to ranking is named, with what to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from rlsft.errors import ConfigError, DataError
from rlsft.ranking import rank_responses
from rlsft.ranking.inputs import collect_candidates

CHAT = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "prompts is empty"),
        ((["p"], [["a", "b"], ["c", "d"]]), "responses must have one entry a prompt: got 2 for 1 prompts"),
        ((["p"], "ab"), "responses must be a list with one entry a prompt, got one string"),
        ((["p"], ["ab"]), r"responses\[0\] must be a list of strings, got one string"),
        ((["p"], [["a", 3]]), r"responses\[0\]\[1\] must be a string, got int"),
        (([3], [["a", "b"]]), r"prompts\[0\] must be a string or a chat list, got int"),
        ((["p", CHAT], [["a", "b"], ["c", "d"]]), r"prompts\[0\] is a str, prompts\[1\] a list"),
        ((["p"], [["a", "b"]], ["x", "y"]), "demonstrations must have one entry a prompt: got 2 for 1"),
        ((["p"], [["a", "b"]], [3]), r"demonstrations\[0\] must be a string or None, got int"),
        ((["p", "q"], [["a"], ["b"]]), r"needs at least 2 that are not empty.*the longest list holds 1"),
        ((["p"], [["a", " ", ""]]), "needs at least 2 that are not empty"),
    ],
)
def test_bad_input_is_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        collect_candidates(*arguments)


def test_empty_responses_are_left_out_and_short_prompts_skipped() -> None:
    found = collect_candidates(["p", "q", "r"], [["a", "", "b"], ["c"], []], ["d", " ", None])
    assert found.texts == ["a", "b", "c"]
    assert found.offsets.tolist() == [0, 2, 3, 3]
    assert found.response_index.tolist() == [0, 2, 0]
    assert found.prompt_index.tolist() == [0, 0, 1]
    assert found.demonstrations == ["d", None, None]
    assert found.num_empty == 1
    assert found.skipped == {1: "1 response: ranking needs at least 2", 2: "0 responses: ranking needs at least 2"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": "shifted_cosin"}, "similarity must be one of .*; did you mean 'shifted_cosine'"),
        ({"cluster": "ballhall"}, "cluster must be one of ball_hall, str, got 'ballhall'; did you mean 'ball_hall'"),
        ({"form": "eigen"}, "form must be one of .*did you mean 'eigenvector'"),
        ({"form": "eigenvector"}, "form='eigenvector' takes no teleport: set teleport=None"),
        ({"teleport": "demo"}, "teleport must be 'demonstration' or None"),
        ({"pair_mode": "atleast"}, "pair_mode must be .*did you mean 'at_least'"),
        ({"noise_kinds": ["negate"]}, "noise_kinds must be .*did you mean 'negation'"),
        ({"noise_kinds": "ngram"}, "noise_kinds must be a list"),
        ({"noise_kinds": []}, "noise_kinds is empty"),
        ({"noise_rate": 1.2}, "noise_rate must lie between 0 and 1, got 1.2"),
        ({"rank_interval": 0}, "rank_interval must be an integer of at least 1, or None, got 0"),
        ({"max_pairs_per_prompt": 1.5}, "max_pairs_per_prompt must be an integer"),
        ({"damping": 1.0}, "damping must be at least 0 and below 1, got 1.0"),
        ({"teleport_strength": -1.0}, "teleport_strength must be finite and at least 0"),
        ({"language": "jp"}, "did you mean 'ja'"),
        ({"encoder": "no/such/folder"}, "encoder must be None, 'minilm', a model folder or a function"),
        ({"encoder": 7}, "encoder must be None, 'minilm', a model folder or a function, got int"),
        ({"cluster_options": {"seed": 3}}, "cluster_options must not set 'seed'"),
        ({"cluster_options": {"n_cluster": 3}}, "cluster_options: .*unexpected keyword argument 'n_cluster'"),
        ({"cluster_options": {"n_clusters": 0}}, "n_clusters must be >= 1, got 0"),
        ({"cluster_options": {"var_threshold": 0.1}}, "var_threshold belongs to variant='str'"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rank_responses(["p"], [["one answer", "another answer"]], **options)
