"""The command line as a user meets it: help, typos, bad files, and real work on a tiny model."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import rlsft_kernels
from rlsft.artifacts import read_jsonl, write_jsonl
from rlsft.cli.main import COMMANDS, main
from rlsft_kernels._backend import backend_calls
from tests.support.models import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"question": f"What is {i}?", "answer": f"It is {i} and {i + 1}."} for i in range(40)]
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", rows)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name}" in out for name in COMMANDS)
    assert main(["--version"]) == 0


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = 0
    try:
        status = main([command, "--help"])
    except SystemExit as end:  # argparse ends that way after printing
        status = end.code  # type: ignore[assignment]
    assert status == 0
    assert len(capsys.readouterr().out) > 50


def test_a_typo_in_the_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rnak"]) == 2
    assert "unknown command 'rnak'; did you mean 'rank'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sft", "--output_dir", "{tmp}/o"], "--model is required"),
        (["sft", "--output_dir", "{tmp}/o", "--model", "/nowhere"], "model '/nowhere': no such folder"),
        (["str", "--output_dir", "{tmp}/o", "--model", "{model}"], "--train_data is required"),
        (["str", "--output_dir", "{tmp}/o", "--model", "{model}", "--train_data", "{tmp}/none.jsonl"], "none.jsonl"),
        (["sft", "--output_dir", "{tmp}/o", "--model", "{model}", "--train_data", "{data}"], "prompt=question"),
        (["rank", "{tmp}/none.jsonl"], "none.jsonl"),
        (["rank"], "FILE"),
        (["generate", "--model", "{model}", "--prompt", "a", "--data", "b"], "--prompt or --data, not both"),
        (["export", "--model", "/nowhere", "--output", "{tmp}/x"], "/nowhere: no such folder"),
        (["report", "/nowhere"], "/nowhere: no such run directory"),
        (["plot", "/nowhere"], "/nowhere: no such run directory"),
        (["demo", "--size", "huge"], "--size must be one of ['small', 'full'], got 'huge'"),
        (["doctor", "--fast"], "takes no options"),
        (["ppo", "--output_dir", "{tmp}/o", "--model", "{model}"], "--reward_model is required"),
        (
            [
                "str",
                "--output_dir",
                "{tmp}/o",
                "--model",
                "{model}",
                "--train_data",
                "{data}",
                "--kpi",
                "json:nope",
                "--column_map",
                "prompt=question,completion=answer",
            ],
            "kpi: 'nope' does not exist in json",
        ),
    ],
)
def test_bad_input_ends_with_one_message_and_status_2(
    argv: list[str], message: str, model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([text.format(tmp=tmp_path, model=model, data=data) for text in argv]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "o" / "sft").exists()


def test_doctor_says_what_runs_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "native" in out
    assert "extra train" in out
    table = out[out.index("cpu float32") :].splitlines()
    ops = {line.split()[0] for line in table[1:] if line.strip()}
    functions = {name for name in rlsft_kernels.__all__ if inspect.isfunction(getattr(rlsft_kernels, name))}
    assert ops == functions, "each public op has one line"


def test_doctor_names_the_backend_that_auto_really_takes() -> None:
    from rlsft.cli.doctor_command import auto_backend, supported_backends

    tables = supported_backends()
    x = torch.randn(5, 3)
    calls: dict[str, Callable[[], object]] = {
        "pairwise_reward_loss": lambda: rlsft_kernels.pairwise_reward_loss(x[:, 0], x[:, 1]),
        "textrank": lambda: rlsft_kernels.textrank(embeddings=x),
        "isodata": lambda: rlsft_kernels.isodata(x, n_clusters=2),
        "pagerank": lambda: rlsft_kernels.pagerank(x.abs().T @ x.abs()),
        "linear_logprob": lambda: rlsft_kernels.linear_logprob(x, x, torch.zeros(5, dtype=torch.int64)),
    }
    for op, call in calls.items():
        before = backend_calls()
        call()
        ran = {
            backend for (name, backend), n in backend_calls().items() if name == op and n > before.get((op, backend), 0)
        }
        assert ran == {auto_backend("cpu", "float32", tables[op])[0]}, op


def test_doctor_says_why_a_backend_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlsft.cli.doctor_command import auto_backend

    monkeypatch.setattr("rlsft_kernels._backend.native_status", lambda: (False, "no compiler"))
    supported = {"native": {"cpu": ("float32",)}}
    assert auto_backend("cpu", "float32", supported) == ("reference", "native is missing: no compiler")
    assert auto_backend("cpu", "bfloat16", supported)[1] == "the op has no faster backend for this device and dtype"
    assert auto_backend("cpu", "bfloat16", {"native": {"cpu": ("float32", "float64")}})[0] == "-"


def test_bench_outside_a_checkout_says_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rlsft.cli.doctor_command.__file__", str(tmp_path / "a" / "b" / "doctor_command.py"))
    assert main(["bench", "pairwise_reward_loss"]) == 2
    assert "rlsft bench runs in a checkout of the project" in capsys.readouterr().err


def test_bench_passes_its_options_on_and_returns_their_verdict(capfd: pytest.CaptureFixture[str]) -> None:
    fast = ["--quick", "--skip-tests", "--rounds", "1", "--threads", "1", "--shape", "P=7"]
    assert main(["bench", "pairwise_reward_loss", *fast]) == 0
    assert "pairwise_reward_loss P=7 float32" in capfd.readouterr().out
    assert main(["bench", "pairwise_reward_loss", "--shape", "Q=7"]) == 2
    assert "--shape of pairwise_reward_loss wants P=..." in capfd.readouterr().err


def test_sft_then_generate_then_export(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sft"
    argv = ["sft", "--model", model, "--train_data", str(data), "--column_map", "prompt=question,completion=answer"]
    argv += ["--output_dir", str(out), "--max_steps", "3", "--per_device_train_batch_size", "4", "--logging_steps", "1"]
    assert main(argv) == 0
    assert any("loss" in row for row in read_jsonl(out / "metrics.jsonl"))
    answers = tmp_path / "answers.jsonl"
    argv = ["generate", "--model", str(out), "--prompt", "What is 3?", "--num_samples", "2", "--output", str(answers)]
    assert main([*argv, "--max_completion_length", "5"]) == 0
    assert len(read_jsonl(answers)[0]["completions"]) == 2
    assert main(["export", "--model", str(out), "--output", str(tmp_path / "plain"), "--dtype", "float32"]) == 0
    assert (tmp_path / "plain" / "model.safetensors").exists()
    assert main(["export", "--model", str(out), "--output", str(tmp_path / "plain")]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_an_adapter_is_exported_merged(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from rlsft.models import add_lora, load_causal_lm

    lora = add_lora(load_causal_lm(model), {"r": 2, "target_modules": "all-linear"})
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    lora.save_pretrained(tmp_path / "adapter")
    tiny_tokenizer().save_pretrained(tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": model}))
    command = ["export", "--model", str(tmp_path / "adapter"), "--output", str(tmp_path / "plain")]
    assert main(command) == 2
    assert "add --merge" in capsys.readouterr().err
    assert main([*command, "--merge"]) == 0
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, lora.eval()(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


def test_an_adapter_folder_of_sft_generates(model: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "lora"
    argv = ["sft", "--model", model, "--train_data", str(data), "--column_map", "prompt=question,completion=answer"]
    assert main([*argv, "--output_dir", str(out), "--max_steps", "1", "--use_peft", "--lora_r", "2"]) == 0
    assert (out / "adapter_config.json").exists()
    answers = tmp_path / "answers.jsonl"
    command = ["generate", "--model", str(out), "--prompt", "Hi", "--output", str(answers)]
    assert main([*command, "--max_completion_length", "4"]) == 0
    assert read_jsonl(answers)


def test_a_tokenizer_without_a_pad_token_says_what_to_add(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import copy
    import shutil

    folder = tmp_path / "padless"
    shutil.copytree(model, folder)
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    argv = ["sft", "--model", str(folder), "--train_data", str(data), "--max_steps", "1"]
    argv += ["--column_map", "prompt=question,completion=answer", "--output_dir", str(tmp_path / "o")]
    assert main(argv) == 2
    assert "has no pad token" in capsys.readouterr().err
    assert main([*argv, "--pad_token", "<|im_end|>"]) == 0


def test_dry_run_trains_nothing(model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["sft", "--model", model, "--train_data", str(data), "--column_map", "prompt=question,completion=answer"]
    assert main([*argv, "--output_dir", str(tmp_path / "o"), "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "It is 0 and 1." in out
    assert "estimate" in out
    assert not (tmp_path / "o" / "metrics.jsonl").exists()


def test_rank_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answers.jsonl"
    answers = ["we went to the park", "we went to the park today", "buy gold now", "the park was nice, we went there"]
    write_jsonl(file, [{"prompt": "Where were you?", "responses": answers, "demonstration": "we went to the park"}])
    assert main(["rank", str(file), "--output_dir", str(tmp_path / "out"), "--cluster", "str"]) == 0
    out = capsys.readouterr().out
    assert "Where were you?" in out
    rows = read_jsonl(tmp_path / "out" / "ranked.jsonl")
    assert {"prompt", "completion", "rank", "score", "cluster", "representative"} <= set(rows[0])
    assert next(row for row in rows if row["completion"] == "buy gold now")["rank"] == 4


def test_eval_compares_two_folders(model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["eval", "--before", model, "--after", model, "--data", str(data), "--num_prompts", "6"]
    argv += ["--column_map", "prompt=question,completion=answer", "--max_completion_length", "5"]
    assert main([*argv, "--output_dir", str(tmp_path / "eval")]) == 0
    table = json.loads((tmp_path / "eval" / "table.json").read_text())
    lengths = next(row for row in table["rows"] if row["key"] == "length")
    assert lengths["difference"]["mean"] == 0
    assert (tmp_path / "eval" / "table.md").read_text().count("|") > 20


NO_NETWORK = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError(f"the network was used: {args!r}")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from rlsft.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def str_command(model: str, data: Path, out: Path) -> list[str]:
    return [
        "str", "--model", model, "--train_data", str(data), "--column_map", "prompt=question,completion=answer",
        "--output_dir", str(out), "--use_peft", "--lora_r", "2", "--max_length", "96", "--max_completion_length", "5",
        "--per_device_train_batch_size", "4", "--sample_prompts", "4", "--samples_per_prompt", "4", "--cluster", "str",
        "--ppo_episodes", "8", "--ppo_batch_size", "8", "--ppo_epochs", "1", "--eval_prompts", "2",
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | {"OMP_NUM_THREADS": "1"}


def test_the_whole_chain_runs_without_a_network(model: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "house.py").write_text(
        "def words(prompt, completion, reference):\n    return len(completion.split())\n"
    )
    command = [sys.executable, "-c", NO_NETWORK, *str_command(model, data, tmp_path / "run"), "--kpi", "house:words"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), check=False, timeout=200, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "house:words" in done.stdout
    assert "SFT and STR on 2 held-out prompts" in done.stdout
    assert (tmp_path / "run" / "report.html").exists()


def test_ctrl_c_leaves_a_run_that_goes_on(model: str, data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlsft.cli.main", *str_command(model, data, tmp_path / "run")]
    slow = [*command, "--sft_num_train_epochs", "400"]
    process = subprocess.Popen(slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size > 0) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()[-2000:] if process.stderr else ""
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err[-2000:]
    assert "Traceback" not in err
    assert list((tmp_path / "run" / "sft").glob("checkpoint-*"))
    second = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=60)
    assert second.returncode == 2
    assert "sft_num_train_epochs was 400.0, now 1.0" in second.stderr
