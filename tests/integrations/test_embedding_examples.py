"""The examples of TRL, verl and OpenRLHF run as printed, on tiny models."""

from __future__ import annotations

import importlib.util
import json
import runpy
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from socketserver import BaseServer
from typing import Any

import pytest

import rlsft.integrations.trl as bridge
from rlsft.rewards import RewardModel
from tests.support import trl_runs
from tests.support.models import tiny_tokenizer
from tests.support.rewarding import tiny_classifier

FOLDER = Path(__file__).parents[2] / "examples" / "embedding"
NAMES = (
    "trl_patched_sft", "trl_learned_reward", "trl_rank_reward", "trl_ranked_pairs", "verl_reward", "openrlhf_server",
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # TRL's own


@pytest.fixture(autouse=True)
def unpatched() -> Iterator[None]:
    yield
    bridge.unpatch()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("examples")
    RewardModel(tiny_classifier("llama", seed=3)).save_pretrained(root / "reward", tiny_tokenizer())
    return {"model": trl_runs.saved_model(root / "model"), "reward": str(root / "reward")}


def run(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("sys.argv", [f"{name}.py", *arguments])
    return runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")


def test_every_example_is_short() -> None:
    for name in NAMES:
        lines = (FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 30, f"{name}.py has {len(lines)} lines"


def test_trl_patched_sft(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("trl_patched_sft", [folders["model"], str(tmp_path)], monkeypatch)
    assert "run on rlsft_kernels.linear_logprob" in capsys.readouterr().err
    losses = [row["loss"] for row in found["trainer"].state.log_history if "loss" in row]
    assert len(losses) == 4
    assert (tmp_path / "model.safetensors").is_file()


def test_trl_learned_reward(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("trl_learned_reward", [folders["model"], folders["reward"], str(tmp_path)], monkeypatch)
    assert "rewards/learned_reward/mean" in capsys.readouterr().out
    assert not bridge.is_patched()


def test_trl_rank_reward(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("trl_rank_reward", [folders["model"], str(tmp_path)], monkeypatch)
    assert "rewards/rank_reward/mean" in capsys.readouterr().out


def test_trl_ranked_pairs(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("trl_ranked_pairs", [folders["reward"], folders["model"], str(tmp_path)], monkeypatch)
    assert len(found["pairs"]) == 8
    assert (tmp_path / "ranked" / "pairs.parquet").is_file()
    said = capsys.readouterr().out
    assert "mean_reward" in said
    assert "rewards/margins" in said


def test_verl_reward(folders: dict[str, str]) -> None:
    spec = importlib.util.spec_from_file_location("custom_module", FOLDER / "verl_reward.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.compute_score(
        data_source="chat", solution_str="one two three", ground_truth="", extra_info={"prompt": "Hello!"},
        reward_path=folders["reward"],
    )  # fmt: skip
    assert found["score"] == pytest.approx(found["learned_reward"] - 0.03)


def test_openrlhf_server(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    serve_forever = BaseServer.serve_forever
    with monkeypatch.context() as patch:
        patch.setattr(BaseServer, "serve_forever", lambda self: None)  # or the example would never end
        server = run("openrlhf_server", [folders["reward"], "0"], monkeypatch)["server"]
    thread = threading.Thread(target=serve_forever, args=(server,))
    thread.start()
    try:
        body = json.dumps({"query": ["Hello! I am fine."], "prompts": ["Hello!"], "labels": [None]}).encode()
        with urllib.request.urlopen(
            f"http://127.0.0.1:{server.server_address[1]}/get_reward", body, timeout=60
        ) as page:
            assert len(json.loads(page.read())["rewards"]) == 1
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
