"""One writer at a time, settings that cannot be mixed, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlsft.errors import RunError
from rlsft.trainers.run_dir import RunDirectory, fingerprint


def test_a_stage_is_reused_only_with_the_settings_it_was_made_with(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run") as run:
        assert run.begin("sft", {"lr": 1e-4, "data": "a"})
        assert not run.is_done("sft")
        run.finish("sft", {"lr": 1e-4, "data": "a"}, loss=1.5)
        assert not run.begin("sft", {"lr": 1e-4, "data": "a"})
        assert run.done("sft")["loss"] == 1.5
        with pytest.raises(RunError, match=r"stage 'sft' .* other settings: lr was 0.0001, now 0.0002.*--redo sft"):
            run.begin("sft", {"lr": 2e-4, "data": "a"})


def test_a_started_stage_cannot_be_continued_with_other_settings(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        run.begin("ppo", {"seed": 1})
        with pytest.raises(RunError, match="seed was 1, now 2"):
            run.begin("ppo", {"seed": 2})
        assert run.begin("ppo", {"seed": 1})


def test_redo_moves_the_old_stage_aside(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        run.begin("ranked", {"d": 0.85})
        (run.stage_dir("ranked") / "ranked.jsonl").write_text("{}\n")
        run.finish("ranked", {"d": 0.85})
        assert run.begin("ranked", {"d": 0.5}, redo=True)
        assert (tmp_path / "ranked.old1" / "ranked.jsonl").exists()
        assert not run.is_done("ranked")


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom rlsft.trainers.run_dir import RunDirectory\nfrom rlsft.errors import RunError\n"
        "try:\n    RunDirectory(sys.argv[1]).open(); print('opened')\nexcept RunError as e: print(e)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with RunDirectory(tmp_path / "run"):
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "is in use by another process (pid " in out
    # the child above ended without closing; a lock must not outlive its process
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "opened"


def test_a_strange_folder_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match=r"not empty and holds no rlsft run \(found 'thesis.tex'\)"):
        RunDirectory(tmp_path).open()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]
    with pytest.raises(RunError, match="is a file"):
        RunDirectory(tmp_path / "thesis.tex").open()


def test_facts_are_merged_and_survive(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        with run.timed("sft"):
            pass
        with run.timed("ppo"):
            pass
        run.record(seed=3)
    facts = json.loads((tmp_path / "run.json").read_text())
    assert set(facts["stage_seconds"]) == {"sft", "ppo"}
    assert facts["seed"] == 3
    assert facts["versions"]["torch"]


def test_fingerprint_ignores_order_and_sees_values() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
