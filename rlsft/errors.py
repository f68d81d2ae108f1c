"""Errors that a user can mend: each message names the thing, what was expected, what came and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RlsftError(Exception):
    """Base of every error that `rlsft` raises on purpose; the command line prints it without a traceback."""

    exit_status = 2  # of the command line


class DataError(RlsftError, ValueError):
    """A data file, a row or a column is not what the method needs."""


class ConfigError(RlsftError, ValueError):
    """A configuration value or key is wrong, or two of them contradict each other."""


class ModelError(RlsftError, ValueError):
    """A model or tokenizer folder cannot be used as asked (no pad token, no LM head, …)."""


class RunError(RlsftError, RuntimeError):
    """A run cannot go on: its directory is in use, the disk is full, a stage is missing."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or nothing: the end of an error message."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
