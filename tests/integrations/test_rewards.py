"""A learned reward gives the same numbers through TRL, verl and OpenRLHF as through our own scoring."""

from __future__ import annotations

import importlib.util
import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlsft.errors import ConfigError, DataError, ModelError
from rlsft.integrations import openrlhf_reward, verl_reward
from rlsft.integrations.rewards import RankReward, RewardFunction, load_reward
from rlsft.rewards import ImplicitReward, RewardModel, score_texts
from tests.support import trl_runs
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.rewarding import tiny_classifier

TOKENIZER = tiny_tokenizer()
PROMPTS = ["Hello!", "Was it fun?", "What did you do?"]
CHATS = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
ANSWERS = ["I am fine, thank you.", "No.", "We went to the park and played football with the children."]
CHAT_ANSWERS = [[{"role": "assistant", "content": answer}] for answer in ANSWERS]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with a stored mean and standard deviation."""
    folder = tmp_path_factory.mktemp("reward") / "model"
    reward = RewardModel(tiny_classifier("llama", seed=3))
    reward.set_normalizer(0.25, 0.5)
    reward.save_pretrained(folder, TOKENIZER)
    return folder


@pytest.fixture(scope="module")
def token_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported token rewards: a manifest that names two checkpoints."""
    root = tmp_path_factory.mktemp("implicit")
    for seed, name in enumerate(("policy", "reference")):
        tiny_model("llama", seed=seed, initializer_range=0.2).save_pretrained(root / name)
        TOKENIZER.save_pretrained(root / name)
    ImplicitReward.from_checkpoints(root / "policy", root / "reference", beta=0.5, max_length=48).save_pretrained(
        root / "rewards"
    )
    return root / "rewards"


def by_scoring(folder: Path, **options: Any) -> list[float]:
    return score_texts(RewardModel.from_pretrained(folder), TOKENIZER, PROMPTS, ANSWERS, **options).tolist()


# ---- TRL -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch_size", [1, 2])
def test_is_the_score_of_the_reward_model_for_texts_and_chats(batch_size: int, model_folder: Path) -> None:
    reward = RewardFunction.from_pretrained(model_folder, batch_size=batch_size, name="good_answer")
    expected = pytest.approx(by_scoring(model_folder), rel=1e-5, abs=1e-6)
    columns = {"completion_ids": [[1]] * 3, "trainer_state": None, "demonstration": ANSWERS}
    assert reward(prompts=PROMPTS, completions=ANSWERS, **columns) == expected
    assert reward(prompts=CHATS, completions=CHAT_ANSWERS) == expected
    assert reward.__name__ == "good_answer"
    assert reward([], []) == []
    scaled = RewardFunction.from_pretrained(model_folder, normalized=True)
    assert scaled(PROMPTS, ANSWERS) == pytest.approx([(x - 0.25) / 0.5 for x in by_scoring(model_folder)], rel=1e-4)


def test_is_the_implicit_reward_with_the_settings_of_its_manifest(token_folder: Path) -> None:
    expected = ImplicitReward.from_pretrained(token_folder).score(PROMPTS, ANSWERS)
    reward = RewardFunction.from_pretrained(token_folder, max_length=7)
    assert reward(PROMPTS, ANSWERS) == pytest.approx(expected.tolist())
    assert max(map(abs, expected)) > 0.1
    per_token = RewardFunction.from_pretrained(token_folder, per_token=True)(PROMPTS, ANSWERS)
    lengths = [len(TOKENIZER(answer)["input_ids"]) + 1 for answer in ANSWERS]
    assert per_token == pytest.approx([x / n for x, n in zip(expected, lengths, strict=True)])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("is_chat", [False, True])
@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_trl_trains_on_learned_rewards(
    name: str, is_chat: bool, tmp_path: Path, model_folder: Path, token_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reward model, an implicit reward and a rank in one real run; what TRL logs is what they gave."""
    if is_chat:
        monkeypatch.setattr(trl_runs, "plain_tokenizer", tiny_tokenizer)
    rewards = [
        RewardFunction.from_pretrained(model_folder, name="explicit"),
        RewardFunction.from_pretrained(token_folder, name="implicit"),
        RankReward(num_generations=2),
    ]
    seen: dict[str, list[list[float]]] = {reward.__name__: [] for reward in rewards}

    def noted(reward: Any) -> Any:
        def function(**columns: Any) -> list[float]:
            assert isinstance(columns["completions"][0], list) == is_chat
            values = reward(**columns)
            seen[reward.__name__].append(values)
            return values

        function.__name__ = reward.__name__
        return function

    data = trl_runs.Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": text}] if is_chat else text, "demonstration": ANSWERS[0]}
            for text in (f"What about {i}?" for i in range(8))
        ]
    )
    monkeypatch.setattr(trl_runs, "_prompts", lambda: data)
    model = trl_runs.saved_model(tmp_path / "model")
    trainer = trl_runs.RUNS[name](model, tmp_path / "run", reward_funcs=[noted(reward) for reward in rewards])
    history = trl_runs.history(trainer)
    assert len(history) == trl_runs.STEPS
    for reward, batches in seen.items():
        assert len(batches) == trl_runs.STEPS
        for row, values in zip(history, batches, strict=True):
            assert row[f"rewards/{reward}/mean"] == pytest.approx(sum(values) / len(values), rel=1e-5, abs=1e-6)
    assert all(sorted(values) == [0.0, 0.0, 1.0, 1.0] or 0.5 in values for values in seen["rank_reward"])
    assert any(row["grad_norm"] > 1e-3 for row in history)


def test_the_rewards_go_to_trl_without_a_wrapper(tmp_path: Path, model_folder: Path) -> None:
    trainer = trl_runs.grpo(
        trl_runs.saved_model(tmp_path / "model"), tmp_path / "run", max_steps=1,
        reward_funcs=[RewardFunction.from_pretrained(model_folder), RankReward()],
    )  # fmt: skip
    assert {"rewards/learned_reward/mean", "rewards/rank_reward/mean"} <= set(trl_runs.history(trainer)[0])


# ---- verl ----------------------------------------------------------------------------------------------------------
def loaded_as_a_file(module: ModuleType) -> ModuleType:
    """verl and OpenRLHF load the file by its path, under a name of their own."""
    assert module.__file__ is not None
    spec = importlib.util.spec_from_file_location("custom_module", module.__file__)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_verl_calls_it_for_one_answer_and_for_a_batch(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute_score = loaded_as_a_file(verl_reward).compute_score
    expected = pytest.approx(by_scoring(model_folder), rel=1e-5, abs=1e-6)
    infos = [{"prompt": PROMPTS[0], "index": 0}, {"raw_prompt": CHATS[1]}, {"question": PROMPTS[2]}]
    path = {"reward_path": str(model_folder)}  # reward_kwargs
    single = [
        compute_score(data_source="chat", solution_str=answer, ground_truth="", extra_info=info, **path)
        for answer, info in zip(ANSWERS, infos, strict=True)
    ]
    assert all(type(value) is float for value in single)
    assert single == expected
    monkeypatch.setenv("RLSFT_REWARD", str(model_folder))
    batch = compute_score(
        data_sources=["chat"] * 3, solution_strs=ANSWERS, ground_truths=[None] * 3, extra_infos=infos
    )  # fmt: skip
    assert batch == expected
    assert compute_score("chat", ANSWERS[0], None, infos[0]) == pytest.approx(single[0])


def test_verl_errors_say_what_to_do(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLSFT_REWARD", raising=False)
    with pytest.raises(ConfigError, match=r"set reward_path .* or RLSFT_REWARD=FOLDER"):
        verl_reward.compute_score(solution_str="a")
    reward = RewardFunction.from_pretrained(model_folder)
    with pytest.raises(
        DataError, match=r"must hold the prompt under one of prompt, raw_prompt, question, got \['index'\]"
    ):
        reward.compute_score("chat", "No.", None, {"index": 3})
    with pytest.raises(DataError, match="got None: verl passes answers without their prompts"):
        reward.compute_score(solution_strs=["No."])
    with pytest.raises(DataError, match="needs solution_str, or solution_strs"):
        reward.compute_score("chat")


# ---- OpenRLHF ------------------------------------------------------------------------------------------------------
def queries(is_finished: bool = True) -> tuple[list[str], list[str]]:
    """Queries and prompts as OpenRLHF makes them from ids, special tokens included."""
    prompts = [TOKENIZER.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in CHATS]
    end = "<|im_end|>" if is_finished else ""
    return [prompt + answer + end for prompt, answer in zip(prompts, ANSWERS, strict=True)], prompts


def test_a_query_is_read_as_it_stands(model_folder: Path, token_folder: Path) -> None:
    for folder in (model_folder, token_folder):
        reward = RewardFunction.from_pretrained(folder)
        finished = reward.reward_queries(*queries())
        assert finished == pytest.approx(reward.score(PROMPTS, ANSWERS), rel=1e-5, abs=1e-6)
        cut_off = reward.reward_queries(*queries(is_finished=False))
        assert all(abs(a - b) > 1e-4 for a, b in zip(finished, cut_off, strict=True))
    begun = [["<|endoftext|>" + query for query in queries()[0]], queries()[1]]
    assert reward.reward_queries(*begun) != pytest.approx(finished)  # a begin token is a token


def test_a_query_too_long_loses_its_oldest_tokens(model_folder: Path) -> None:
    reward = RewardFunction.from_pretrained(model_folder, max_length=12)
    texts, prompts = queries()
    ids = [TOKENIZER(text)["input_ids"] for text in texts[:1]]
    model = RewardModel.from_pretrained(model_folder)
    assert len(ids[0]) > 12
    kept = torch.tensor([ids[0][-12:]])
    expected = model.score(kept, torch.ones_like(kept)).tolist()
    assert reward.reward_queries(texts[:1], prompts[:1]) == pytest.approx(expected, rel=1e-5)


def test_openrlhf_loads_the_file(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLSFT_REWARD", str(model_folder))
    found = loaded_as_a_file(openrlhf_reward).reward_func(*queries(), ["label"] * 3)
    assert set(found) == {"rewards", "scores", "extra_logs"}
    assert found["rewards"].dtype == torch.float32
    assert found["rewards"].tolist() == pytest.approx(by_scoring(model_folder), rel=1e-5, abs=1e-6)
    with pytest.raises(DataError, match="query 0 does not begin with its prompt"):
        openrlhf_reward.reward_func(["Hello"], ["Bye"], [""])


@pytest.fixture
def url(model_folder: Path) -> Iterator[str]:
    server = openrlhf_reward.make_server(RewardFunction.from_pretrained(model_folder), port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/get_reward"
    server.shutdown()
    thread.join()
    server.server_close()


def post(url: str, content: bytes) -> tuple[int, Any]:
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_server_answers_as_openrlhf_asks(url: str, model_folder: Path) -> None:
    texts, prompts = queries()
    expected = by_scoring(model_folder)
    answers: dict[int, Any] = {}

    def ask(i: int) -> None:  # OpenRLHF asks for one answer at a time, for many at once
        body = {"query": texts[i : i + 1], "prompts": prompts[i : i + 1], "labels": [None]}
        answers[i] = post(url, json.dumps(body).encode())

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for i in range(3):
        status, found = answers[i]
        assert status == 200
        assert found == {"rewards": found["rewards"], "scores": found["rewards"], "extra_logs": {}}
        assert found["rewards"] == pytest.approx(expected[i : i + 1], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "Expecting property name"),
        (b"[]", "must be a JSON object with 'query'"),
        (b'{"query": ["a b"]}', "must be a JSON object with 'prompts'"),
        (b'{"query": "a", "prompts": ["a"]}', "with 'query', a list of strings"),
        (b'{"query": ["a", "b"], "prompts": ["a"]}', "must have one length, got 2 and 1"),
        (b'{"query": ["b"], "prompts": ["a"]}', "query 0 does not begin with its prompt"),
    ],
)
def test_the_server_refuses_what_it_cannot_score_and_goes_on(content: bytes, message: str, url: str) -> None:
    status, found = post(url, content)
    assert status == 400
    assert message in found["error"]
    assert post(url, b'{"query": ["a b"], "prompts": ["a"]}')[0] == 200


def test_the_server_says_what_is_no_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert openrlhf_reward.main([str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err


# ---- folders -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", ["reward_model", "reward/model"])
def test_a_finished_run_is_its_reward_model(place: str, tmp_path: Path, model_folder: Path) -> None:
    """RFT and STR write the policy into the run's folder, and the reward below it."""
    trl_runs.saved_model(tmp_path)
    shutil.copytree(model_folder, tmp_path / place)
    assert load_reward(tmp_path)(PROMPTS, ANSWERS) == pytest.approx(by_scoring(model_folder), rel=1e-5, abs=1e-6)


def test_what_is_no_reward_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_reward(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"holds no reward: neither token_reward\.json, nor config\.json"):
        load_reward(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"task_type": "CAUSAL_LM"}')
    with pytest.raises(ModelError, match="an adapter of a language model"):
        load_reward(tmp_path)
    policy = trl_runs.saved_model(tmp_path / "policy")
    with pytest.raises(ModelError, match=r"is a LlamaForCausalLM, not a reward model; .* rlsft export --token-rewards"):
        load_reward(policy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "out"}, "must be a RewardModel or an ImplicitReward, got str; RewardFunction.from_pretrained"),
        ({"tokenizer": None}, "tokenizer is missing"),
        ({"per_token": True}, "per_token=True is for implicit rewards"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    values = {"reward": RewardModel(tiny_classifier()), "tokenizer": TOKENIZER, **options}
    with pytest.raises(ConfigError, match=message):
        RewardFunction(values.pop("reward"), **values)


def test_an_implicit_reward_has_no_normaliser(token_folder: Path) -> None:
    with pytest.raises(ConfigError, match="normalized=True is for reward models"):
        RewardFunction.from_pretrained(token_folder, normalized=True)
