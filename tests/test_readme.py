"""The code blocks of the README run as printed; its commands and paths exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlsft.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_blocks_to_run() -> None:
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_blocks_run_as_printed(number: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[number]], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_commands_in_the_readme_exist() -> None:
    named = set(re.findall(r"(?:^|`)rlsft ([a-z]+)", README, flags=re.MULTILINE))
    assert named
    assert named <= set(COMMANDS)
    targets = set(re.findall(r"make ([a-z]+)", README))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_paths_in_the_map_exist() -> None:
    house = README.split("## The map of the house")[1].split("```")[1]
    for line in house.strip().splitlines():
        for name in re.findall(r"(?:^|, |\s)([a-z_/]+(?:\.md|/)?)(?=[ ,;])", line.split("  ")[0] + " "):
            on_disk = (ROOT / name).exists() or (ROOT / "rlsft" / name).exists()
            assert on_disk, f"{name} is in the map and not on the disk"


def test_the_example_config_parses(tmp_path: Path) -> None:
    from rlsft.cli.job import JobArguments
    from rlsft.cli.parsing import parse
    from rlsft.trainers.str.config import STRConfig

    (job, args), _ = parse(
        "str",
        [JobArguments, STRConfig],
        ["--config", str(ROOT / "examples" / "str_chitchat.yaml"), "--output_dir", str(tmp_path)],
        description="",
    )
    assert job.train_data == "chitchat"
    assert args.use_peft


def test_the_example_config_is_the_demo(tmp_path: Path) -> None:
    import yaml

    from rlsft.cli.str_commands import DEMO_DEFAULTS, DEMO_SIZES

    example = yaml.safe_load((ROOT / "examples" / "str_chitchat.yaml").read_text(encoding="utf-8"))
    demo = DEMO_DEFAULTS | DEMO_SIZES["small"]
    assert {k: v for k, v in example.items() if k in demo and k != "output_dir" and demo[k] != v} == {}
    assert set(demo) - set(example) <= {"agreement_prompts", "show_progress"}


def test_the_python_example_compiles() -> None:
    source = (ROOT / "examples" / "str_chitchat.py").read_text(encoding="utf-8")
    compile(source, "str_chitchat.py", "exec")
    assert len([line for line in source.splitlines() if line.strip()]) <= 30
