"""The short examples of transformers, plain torch, verl and the hub run as printed, on tiny models."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import tiny_model, tiny_tokenizer

FOLDER = Path(__file__).parents[2] / "examples" / "embedding"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


# example -> its arguments, what it prints
EXAMPLES = {
    "transformers_patch_model": (("MODEL", "OUTPUT"), "eval_loss"),
    "transformers_loss_func": (("MODEL", "OUTPUT"), "train_loss"),
    "torch_loop": ((), "accuracy"),
    "torch_compiled_step": ((), "gradient of the head"),
    "torch_ppo_step": ((), "value loss"),
    "hub_kernels": (("OUTPUT",), ": 1.9459"),
    "verl_ops": ((), "advantages of 10 tokens"),
}


@pytest.mark.filterwarnings("ignore:.*Online softmax is disabled.*")
@pytest.mark.parametrize("name", EXAMPLES)
def test_example(
    name: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = EXAMPLES[name]
    if name == "hub_kernels":
        pytest.importorskip("kernels", reason="pip install --no-deps kernels==0.17.2")
    source = FOLDER / f"{name}.py"
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 30
    known: dict[str, Any] = {"MODEL": model, "OUTPUT": str(tmp_path)}
    monkeypatch.setattr("sys.argv", [f"{name}.py", *(known[argument] for argument in arguments)])
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(source), run_name="__main__")
    said = capsys.readouterr()
    assert expected in said.out
    if name == "transformers_patch_model":
        assert "[rlsft] LlamaForCausalLM" in said.err
        assert (tmp_path / "model.safetensors").is_file()
    if name == "torch_loop":
        assert found["losses"][-1] < 0.5 * found["losses"][0]
