"""The directory of a run: one writer at a time, stages that are finished or not, settings that cannot be mixed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rlsft._version import __version__
from rlsft.artifacts import jsonable, write_json
from rlsft.errors import RunError

MARKER = "run.json"


class RunDirectory:
    """A run's folder, locked for this process while the object is open.

    A stage is finished when `<stage>/done.json` exists. It is written last and holds the settings the stage was made
    with, so that a later start either reuses the result or says exactly which setting differs.

    Raises:
        RunError: the folder belongs to something else, or another process is writing to it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: IO[str] | None = None

    def open(self) -> RunDirectory:
        """Create the folder if needed and take its lock."""
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"output_dir {self.path} is a file; choose a folder with --output_dir")
        strangers = [p.name for p in self.path.iterdir()] if self.path.exists() else []
        if strangers and not (self.path / MARKER).exists() and set(strangers) - {"run.lock"}:
            raise RunError(
                f"output_dir {self.path} is not empty and holds no rlsft run (found {sorted(strangers)[0]!r}); "
                "choose another --output_dir or empty this one"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "run.lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise RunError(
                f"cannot write to output_dir {self.path}: {error.strerror}. Choose another --output_dir."
            ) from error
        try:
            # the kernel drops this lock when the process ends, however it ends: no stale lock after a kill
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            self._lock.close()
            self._lock = None
            raise RunError(
                f"output_dir {self.path} is in use by another process ({holder}); wait for it "
                "or choose another --output_dir"
            ) from None
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(f"pid {os.getpid()} on {platform.node()}")
        self._lock.flush()
        if not (self.path / MARKER).exists():
            self.record(created=_now())
        return self

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            self._lock.close()
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def record(self, **facts: Any) -> None:
        """Merge `facts` into run.json: versions, seed, argv, times and tokens of each stage."""
        known = self.facts()
        known.setdefault("versions", versions())
        known.setdefault("argv", sys.argv)
        _merge(known, facts)
        write_json(self.path / MARKER, known)

    def facts(self) -> dict[str, Any]:
        """What run.json holds now."""
        file = self.path / MARKER
        try:
            return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        except json.JSONDecodeError:
            raise RunError(f"{file} is not valid JSON; restore it or choose another --output_dir") from None

    # ---- stages ---------------------------------------------------------------------------------------------------
    def stage_dir(self, stage: str) -> Path:
        """The folder of a stage."""
        return self.path / stage

    def is_done(self, stage: str) -> bool:
        """Whether the stage has finished, whatever its settings."""
        return (self.stage_dir(stage) / "done.json").exists()

    def begin(self, stage: str, settings: Mapping[str, Any], *, redo: bool = False) -> bool:
        """True if the stage still has work to do; False if it is finished with these very settings.

        Raises:
            RunError: the stage was started or finished with other settings, which are named.
        """
        folder = self.stage_dir(stage)
        wanted = jsonable(dict(settings))
        if redo:
            self._discard(stage)
            self.record(stage_seconds={stage: 0.0})
        for name in ("done.json", "started.json"):
            file = folder / name
            if not file.exists():
                continue
            stored = json.loads(file.read_text(encoding="utf-8"))["settings"]
            different = sorted(k for k in {*stored, *wanted} if stored.get(k) != wanted.get(k))
            if different:
                key = different[0]
                raise RunError(
                    f"stage {stage!r} in {self.path} was made with other settings: {key} was {stored.get(key)!r}, "
                    f"now {wanted.get(key)!r}"
                    + (f" (and {len(different) - 1} more)" if len(different) > 1 else "")
                    + f". Use --redo {stage} to make it and what follows again, or another --output_dir."
                )
            if name == "done.json":
                return False
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "started.json", {"settings": wanted, "started": _now()})
        return True

    def finish(self, stage: str, settings: Mapping[str, Any], **facts: Any) -> None:
        """Mark the stage as finished: the last file that it writes."""
        write_json(
            self.stage_dir(stage) / "done.json",
            {"settings": dict(settings), "fingerprint": fingerprint(settings), "finished": _now(), **facts},
        )

    def done(self, stage: str) -> dict[str, Any]:
        """What `finish` recorded.

        Raises:
            RunError: the stage has not finished.
        """
        file = self.stage_dir(stage) / "done.json"
        if not file.exists():
            raise RunError(f"stage {stage!r} in {self.path} has not finished; run it first")
        return json.loads(file.read_text(encoding="utf-8"))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall seconds of the block to the stage's time in run.json, also when it is interrupted."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = self.facts().get("stage_seconds", {}).get(stage, 0.0) + time.perf_counter() - start
            self.record(stage_seconds={stage: round(spent, 2)})

    def _discard(self, stage: str) -> None:
        """Move a stage aside instead of deleting it: nothing already written is lost."""
        folder = self.stage_dir(stage)
        if folder.exists():
            number = 1
            while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
                number += 1
            folder.rename(aside)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short stable hash of settings."""
    text = json.dumps(jsonable(dict(settings)), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    import importlib.metadata as metadata

    found = {"rlsft": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in ("torch", "transformers", "accelerate", "peft", "datasets", "numpy", "nltk", "sacrebleu"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _merge(target: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
