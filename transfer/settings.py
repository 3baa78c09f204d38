"""Settings: TOML and environment into one frozen, validated struct, read once at start.

An unknown key is an error that names the nearest known one; a value out of range names its key. Environment
variables `FASCICLE_SECTION__KEY` (upper case, two underscores between levels; `FASCICLE__KEY` outside sections)
override the file. Refuses to do: holding global state, writing files.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from transfer.errors import SettingsError

T = TypeVar("T")
ENVIRONMENT_PREFIX = "FASCICLE_"


def load(kind: type[T], path: Path, environment: Mapping[str, str] = os.environ) -> T:
    """Read `path` as the settings struct `kind`.

    Raises:
        SettingsError: unreadable file, bad TOML, unknown key, or a value that does not fit.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot read the configuration: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    override(raw, environment)
    return parse(kind, raw, source=str(path))


def parse(kind: type[T], raw: dict[str, Any], *, source: str) -> T:
    """Validate an already parsed mapping; `source` names it in errors."""
    _check_keys(kind, raw, source, "")
    try:
        return msgspec.convert(raw, kind, strict=True)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {error}") from error


def override(raw: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Put what the environment says in place of what a file said.

    Raises:
        SettingsError: a variable names a section that is none.
    """
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue
        *sections, key = name.removeprefix(ENVIRONMENT_PREFIX).removeprefix("_").lower().split("__")
        level = raw
        for section in sections:
            level = level.setdefault(section, {})
            if not isinstance(level, dict):
                raise SettingsError(f"{name}: `{section}` is not a section")
        level[key] = _toml_value(text)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _check_keys(kind: Any, raw: Any, source: str, prefix: str) -> None:
    """Walk structs, and lists and optionals of structs, so that a typing error is named where it stands."""
    inner = _struct_of(kind)
    if inner is None:
        return
    if isinstance(raw, list):
        for index, item in enumerate(raw):
            _check_keys(inner, item, source, f"{prefix.rstrip('.')}[{index}].")
        return
    if not isinstance(raw, dict):
        return
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(inner)}
    for key, value in raw.items():
        if key not in fields:
            raise SettingsError(f"{source}: unknown key `{prefix}{key}`{_nearest(key, fields)}")
        _check_keys(fields[key], value, source, f"{prefix}{key}.")


def _struct_of(kind: Any) -> type[msgspec.Struct] | None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((found for found in map(_struct_of, get_args(kind)) if found), None)


def _nearest(key: str, fields: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, fields, n=1, cutoff=0.4)
    return f"; did you mean `{close[0]}`?" if close else f"; known keys: {', '.join(sorted(fields))}"
