"""Flags and YAML to config dataclasses: flat keys, flags win, an unknown key is an error with the nearest name."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlsft.errors import ConfigError, did_you_mean

RESERVED = ("config", "env")


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The flat mapping in a YAML file; its `env:` block, if any, is put into the environment and removed."""
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"--config {file}: no such file")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"--config {file}{where}: {problem}. Expected one `key: value` a line.") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"--config {file}: expected `key: value` lines, got a {type(values).__name__}")
    env = values.pop("env", None) or {}
    if not isinstance(env, dict):
        raise ConfigError(f"--config {file}: `env` must be a mapping of variables to values, got {type(env).__name__}")
    for name, value in env.items():
        os.environ[str(name)] = str(value)
    return {str(key): value for key, value in values.items()}


def unknown_key(key: str, known: Sequence[str], where: str) -> ConfigError:
    """The error for a key nobody knows, with the nearest name."""
    hint = did_you_mean(key.lstrip("-").replace("-", "_"), known) or "; see --help"
    return ConfigError(f"{where}: unknown key {key!r}{hint}")


def build_parser(command: str, classes: Sequence[type], *, description: str, own: Sequence[str] | None = None) -> Any:
    """An argument parser over dataclasses; --help shows rlsft's own fields, every inherited one is accepted too."""
    from transformers import HfArgumentParser

    parser = HfArgumentParser(
        [*classes],  # type: ignore[arg-type]
        prog=f"rlsft {command}",
        usage=f"rlsft {command} [--config FILE.yaml] [--key value ...]",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Every field of transformers.TrainingArguments is accepted as well (--help_all lists them).",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of these keys; flags win over it")
    parser.add_argument("--dry_run", action="store_true", help="show data, masks and estimates; train nothing")
    parser.add_argument("--help_all", action="store_true", help="list the inherited fields too")
    visible = {
        *own_fields(classes),
        *(own or ()),
        "config",
        "dry_run",
        "help_all",
        "help",
        "output_dir",
        "seed",
    }
    parser.hidden_help = {a.dest: a.help for a in parser._actions if a.dest not in visible}  # type: ignore[attr-defined]
    for action in parser._actions:
        if action.dest in parser.hidden_help:  # type: ignore[attr-defined]
            action.help = argparse.SUPPRESS
    return parser


def own_fields(classes: Sequence[type]) -> list[str]:
    """Names of the fields that rlsft's classes declare themselves, in order."""
    names: list[str] = []
    for cls in classes:
        for base in reversed(cls.__mro__):
            if base.__module__.startswith("rlsft"):
                names += [name for name in inspect.get_annotations(base) if name not in names]
    return names


def field_names(classes: Sequence[type]) -> list[str]:
    """Names of all fields that can be set."""
    return [field.name for cls in classes for field in dataclasses.fields(cls) if field.init]


def parse(
    command: str,
    classes: Sequence[type],
    argv: Sequence[str],
    *,
    description: str,
    defaults: Mapping[str, Any] | None = None,
) -> tuple[tuple[Any, ...], argparse.Namespace]:
    """Parse `argv` into one instance a class, and the namespace with `dry_run` and `config`.

    Order of precedence: flags, then the file of `--config`, then `defaults`, then the classes' own defaults.

    Raises:
        ConfigError: an unknown key (with the nearest name), a value of the wrong type, a broken YAML file.
    """
    parser = build_parser(command, classes, description=description)
    known = field_names(classes)
    if "--help_all" in argv:
        for action in parser._actions:
            if action.dest in parser.hidden_help:
                action.help = parser.hidden_help[action.dest]
        parser.print_help()
        raise SystemExit(0)
    values = dict(defaults or {})
    config_file = _value_of(argv, "--config")
    if config_file is not None:
        loaded = read_yaml(config_file)
        for key in loaded:
            if key not in known:
                raise unknown_key(key, known, f"--config {config_file}")
        values |= loaded
    _set_defaults(parser, values)
    parser.error = _raise_config_error  # type: ignore[method-assign]
    namespace, rest = parser.parse_known_args(list(argv))
    if rest:
        flags = [text for text in rest if text.startswith("-")]
        if flags:
            raise unknown_key(flags[0].split("=")[0], known, f"rlsft {command}")
        raise ConfigError(f"rlsft {command}: {rest[0]!r} belongs to no flag; keys are given as --key value")
    return _instances(classes, namespace), namespace


def _instances(classes: Sequence[type], namespace: argparse.Namespace) -> tuple[Any, ...]:
    built = []
    for cls in classes:
        fields = [field.name for field in dataclasses.fields(cls) if field.init]
        try:
            built.append(cls(**{name: getattr(namespace, name) for name in fields}))
        except (ValueError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{cls.__name__}: {error}") from error
    return tuple(built)


def _set_defaults(parser: argparse.ArgumentParser, values: Mapping[str, Any]) -> None:
    """Make file values the parser's defaults; text goes through the flag's own conversion, as on the command line."""
    actions = {action.dest: action for action in parser._actions}
    for key, value in values.items():
        action = actions[key]
        if isinstance(value, dict):
            import json

            value = json.dumps(value)
        if isinstance(value, str) and action.type is not None and action.nargs in (None, "?"):
            try:
                value = action.type(value)  # type: ignore[operator]
            except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
                raise ConfigError(f"{key}: expected {_type_name(action)}, got {value!r} ({error})") from None
        elif action.type in (int, float) and value is not None and action.nargs is None:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or action.type(value) != value:
                raise ConfigError(f"{key}: expected {_type_name(action)}, got {value!r}")
            value = action.type(value)
        if action.choices is not None and value is not None and value not in action.choices:
            raise ConfigError(f"{key}: expected one of {list(action.choices)}, got {value!r}")
        action.default = value
        action.required = False
    parser.set_defaults(**{key: actions[key].default for key in values})


def _type_name(action: argparse.Action) -> str:
    return getattr(action.type, "__name__", str(action.type))


def _raise_config_error(message: str) -> None:
    raise ConfigError(message)


def _value_of(argv: Sequence[str], flag: str) -> str | None:
    for index, text in enumerate(argv):
        if text == flag:
            if index + 1 >= len(argv):
                raise ConfigError(f"{flag} needs a file name")
            return argv[index + 1]
        if text.startswith(flag + "="):
            return text.split("=", 1)[1]
    return None
