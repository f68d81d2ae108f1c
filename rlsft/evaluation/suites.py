"""Suites of lm-evaluation-harness on a model: the leaderboard's six tasks, the paper's variant, one's own files."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlsft.artifacts import write_json, write_text
from rlsft.errors import ConfigError, DataError, did_you_mean
from rlsft.evaluation.suite_tasks import LocalTask, check_shots

# The Open LLM Leaderboard's first six: (task, shots, the metric that it counts)
LEADERBOARD = (
    ("arc_challenge", 25, "acc_norm"),
    ("hellaswag", 10, "acc_norm"),
    ("mmlu", 5, "acc"),
    ("truthfulqa_mc2", 0, "acc"),
    ("winogrande", 5, "acc"),
    ("gsm8k", 5, "exact_match"),
)
PRESETS = {
    "leaderboard": LEADERBOARD,
    # the released script of arXiv 2405.17888 asks mmlu with one example
    "paper": tuple((task, 1 if task == "mmlu" else shots, metric) for task, shots, metric in LEADERBOARD),
}
SUITES = (*PRESETS, "local")


@dataclass(frozen=True, kw_only=True)
class SuiteRow:
    """One metric of one task."""

    task: str
    metric: str  # the harness's name, with its filter where that is not "none"
    value: float
    stderr: float | None
    num_fewshot: int
    version: str  # of the task, as the harness gives it
    samples: int
    counts: bool = True  # whether it enters the mean


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """What a suite measured, with everything that has to be equal for two results to be compared."""

    suite: str
    model: str
    rows: tuple[SuiteRow, ...]
    harness: str  # version of lm-evaluation-harness
    chat_template: bool
    limit: int | None  # questions a task; None = all

    @property
    def mean(self) -> float:
        """Mean of the metrics that count, one a task."""
        return statistics.fmean(row.value for row in self.rows if row.counts)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "mean": self.mean}

    def to_markdown(self) -> str:
        """A table, and one line with the settings."""
        lines = ["| task | shots | metric | value | standard error | n |", "|---|---|---|---|---|---|"]
        for row in self.rows:
            error = "–" if row.stderr is None else f"{100 * row.stderr:.2f}"
            mark = "" if row.counts else " (not counted)"
            lines.append(
                f"| {row.task} | {row.num_fewshot} | {row.metric}{mark} | {100 * row.value:.2f} | {error} | "
                f"{row.samples} |"
            )
        cut = "" if self.limit is None else f", the first {self.limit} questions of each task only"
        template = "with" if self.chat_template else "without"
        settings = (
            f"Suite {self.suite} of {self.model}: mean {100 * self.mean:.2f}; lm-evaluation-harness {self.harness}, "
            f"{template} chat template{cut}. Values in per cent; compare only what has equal settings."
        )
        return "\n".join([*lines, "", settings, ""])


def run_suite(
    suite: str,
    model: Any,
    tokenizer: Any,
    *,
    name: str,
    tasks: Sequence[LocalTask] = (),
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int | None = None,
    chat_template: bool | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> SuiteResult:
    """Ask a model every question of a suite through lm-evaluation-harness.

    Args:
        suite: "leaderboard" (six tasks, mmlu with 5 examples), "paper" (mmlu with 1) or "local" (`tasks`).
        model: a loaded causal LM, or a function that loads it: it is called when the questions are at hand.
        tokenizer: of the model.
        name: label of the model in the result.
        tasks: the user's own, for "local".
        num_fewshot: examples before a question of one's own tasks; None = as each file says.
        limit: first questions of a task only, for a quick look; such numbers are not the suite's.
        batch_size: questions a forward.
        max_length: tokens of a question with its examples; None = the model's context.
        chat_template: whether questions are written as chats; None = not in the presets, which are defined without;
            in "local" where the tokenizer has a template.
        output_dir: where `suite.json` and `suite.md` are written after each task.
        seed: of the choice of examples.

    Raises:
        ConfigError: an unknown suite, tasks that do not fit it, or the harness is not installed.
        DataError: the data of a preset are not on this machine, or a file has too few rows for its examples.
    """
    plan = _plan(suite, tasks, num_fewshot)
    _require_harness()
    chat = _has_template(tokenizer) and suite == "local" if chat_template is None else chat_template
    if chat and not _has_template(tokenizer):
        raise ConfigError("chat_template=True, but the tokenizer has no chat template")
    with _quiet():
        manager = _task_manager(suite, plan)
        loaded = model() if callable(model) and not hasattr(model, "parameters") else model
        lm = _language_model(loaded, tokenizer, batch_size, max_length)
        rows: list[SuiteRow] = []
        for task, shots, metric in plan:
            rows += _ask(lm, manager, task, shots, metric, limit=limit, chat=chat, seed=seed)
            result = SuiteResult(
                suite=suite, model=name, rows=tuple(rows), harness=importlib.metadata.version("lm_eval"),
                chat_template=chat, limit=limit,
            )  # fmt: skip
            if output_dir is not None:  # a kill loses one task, not the evening
                write_json(Path(output_dir) / "suite.json", result.to_json())
                write_text(Path(output_dir) / "suite.md", result.to_markdown())
    return result


Plan = list[tuple[str | LocalTask, int, str]]


def _plan(suite: str, tasks: Sequence[LocalTask], num_fewshot: int | None) -> Plan:
    if suite not in SUITES:
        raise ConfigError(f"suite must be one of {', '.join(SUITES)}, got {suite!r}{did_you_mean(suite, SUITES)}")
    if suite != "local":
        if tasks or num_fewshot is not None:
            raise ConfigError(f"suite {suite!r} fixes its tasks and examples; use suite 'local' for your own")
        return [*PRESETS[suite]]
    if not tasks:
        raise ConfigError("suite 'local' needs at least one task file (--task FILE)")
    names = [task.name for task in tasks]
    for task in tasks:
        if names.count(task.name) > 1:
            raise ConfigError(f"two task files are named {task.name!r}; give one another name in the file (name: …)")
        check_shots(task, task.num_fewshot if num_fewshot is None else num_fewshot)
    return [(task, task.num_fewshot if num_fewshot is None else num_fewshot, task.metrics[0]) for task in tasks]


def _require_harness() -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            "--suite runs lm-evaluation-harness, which is not installed: "
            "pip install --no-deps -r requirements/eval.txt (in a checkout), or pip install lm-eval"
        )


def _task_manager(suite: str, plan: Plan) -> Any:
    """The harness's index of tasks; loads the data of a preset, so that what is missing is said before the model is."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=suite != "local")
    for task, _, _ in plan:
        if isinstance(task, str):
            try:
                manager.load([task])
            except (OSError, ValueError) as error:  # ConnectionError and what datasets makes of it
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise DataError(
                    f"the questions of {task!r} are not on this machine and cannot be fetched: {first}. Run the same "
                    "command once where there is a network (without HF_HUB_OFFLINE), or copy its HF_HOME here; "
                    "--suite local runs your own files without a network"
                ) from error
    return manager


def _language_model(model: Any, tokenizer: Any, batch_size: int, max_length: int | None) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=model.eval(), tokenizer=tokenizer, batch_size=batch_size, max_length=max_length,
        device=str(next(model.parameters()).device),
    )  # fmt: skip


def _ask(
    lm: Any, manager: Any, task: str | LocalTask, shots: int, counted: str, *, limit: int | None, chat: bool, seed: int
) -> list[SuiteRow]:
    import lm_eval

    found = lm_eval.simple_evaluate(
        lm,
        tasks=[task if isinstance(task, str) else task.to_harness(shots)],
        num_fewshot=shots,
        task_manager=manager,
        limit=limit,
        bootstrap_iters=1000,
        apply_chat_template=chat,
        log_samples=False,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    assert found is not None  # None on ranks other than 0 only
    return rows_of(task if isinstance(task, str) else task.name, found, shots, counted)


def rows_of(name: str, found: Any, shots: int, counted: str) -> list[SuiteRow]:
    """The rows of task `name` from what the harness returns; a group's own row stands for its members."""
    values = found["results"][name]
    size = found.get("n-samples", {})
    samples = size[name]["effective"] if name in size else sum(part["effective"] for part in size.values())
    given = found.get("n-shot", {})  # what was really shown; a group says it for its members alone
    shots = given.get(name, max(given.values(), default=shots))
    rows: list[SuiteRow] = []
    for key, value in values.items():
        metric, comma, filter_ = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
            continue
        stderr = values.get(f"{metric}_stderr,{filter_}")
        is_first = not any(row.counts for row in rows)
        rows.append(
            SuiteRow(
                task=name,
                metric=metric if filter_ == "none" else f"{metric} ({filter_})",
                value=float(value),
                stderr=float(stderr) if isinstance(stderr, (int, float)) else None,
                num_fewshot=int(shots),
                version=str(found.get("versions", {}).get(name, "–")),
                samples=int(samples),
                counts=metric == counted and is_first,  # gsm8k comes twice: its strict filter is first
            )
        )
    return rows


def _has_template(tokenizer: Any) -> bool:
    return getattr(tokenizer, "chat_template", None) is not None


@contextmanager
def _quiet() -> Iterator[None]:
    """The harness warns about defaults that are meant; its errors still come through."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
