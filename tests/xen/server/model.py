"""XenAPI's data model: which calls there are, with which parameters of which types, and what a record's fields are.

Every parameter that the server is sent is judged here, by the published model alone. `Violation` is what a test fails
with: a call that the model does not have, or a value that is not of its type.
"""

import json
import re
import xmlrpc.client
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

NULL = "OpaqueRef:NULL"
REFERENCE = re.compile(r"OpaqueRef:[0-9A-Za-z-]+")
WHOLE = re.compile(r"-?[0-9]+")


class Violation(Exception):
    """What the server's client did that the data model does not allow."""

    def __init__(self, name: str, *details: str) -> None:
        super().__init__(name, *details)
        self.words = [name, *details]


@cache
def load() -> Mapping[str, Any]:
    """Return the reduced model by class."""
    found: Mapping[str, Any] = json.loads(Path(__file__).with_name("model.json").read_text())
    return found


def message(method: str) -> Mapping[str, Any]:
    """Return what the model says of `Class.message`."""
    name, _, rest = method.partition(".")
    try:
        found: Mapping[str, Any] = load()[name]["messages"][rest]
    except KeyError:
        raise Violation("MESSAGE_METHOD_UNKNOWN", method) from None
    return found


def check_parameters(method: str, values: tuple[Any, ...]) -> None:
    """Judge the parameters of a call, the session's reference among them."""
    expected = message(method)["params"]
    least = sum(len(each) == 2 for each in expected)
    if not least <= len(values) <= len(expected):
        raise Violation("MESSAGE_PARAMETER_COUNT_MISMATCH", method, str(len(expected)), str(len(values)))
    for (name, kind, *_), value in zip(expected, values, strict=False):
        if not fits(kind, value):
            raise Violation("FIELD_TYPE_ERROR", f"{method}: {name}", f"{value!r} is not of type {kind}")


def fits(kind: str, value: Any) -> bool:
    """Tell whether a value, as it travels by XML-RPC, is of a type of the model."""
    if kind in BASIC:
        return BASIC[kind](value)
    if kind.startswith("(") and kind.endswith(") map"):
        key, _, inner = _arrow(kind[1:-5])
        return isinstance(value, dict) and all(fits(key, k) and fits(inner, v) for k, v in value.items())
    for ending, judge in ENDINGS.items():
        if kind.endswith(ending):
            return judge(kind.removesuffix(ending), value)
    if kind.startswith("enum "):
        return isinstance(value, str) and value in enum(kind.removeprefix("enum "))
    raise ValueError(kind)


def _arrow(text: str) -> tuple[str, str, str]:
    """Split `K -> V` at the outermost arrow."""
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and text.startswith(" -> ", index):
            return text[:index], " -> ", text[index + 4 :]
    raise ValueError(text)


def _is_record(name: str, value: Any) -> bool:
    fields = load()[name]["fields"]
    if not isinstance(value, dict) or not value.keys() <= fields.keys():
        return False
    needed = {key for key, (_, qualifier, *default) in fields.items() if qualifier != "RO/runtime" and not default}
    return needed <= value.keys() and all(fits(fields[key][0], each) for key, each in value.items())


@cache
def enum(name: str) -> frozenset[str]:
    """Return an enumeration's values."""
    return frozenset(next(each["enums"][name] for each in load().values() if name in each["enums"]))


def zero(kind: str) -> Any:
    """Return the empty value of a type."""
    if kind.endswith((" set", " record set")):
        return []
    if kind.endswith(" map"):
        return {}
    if kind.endswith(" ref"):
        return NULL
    if kind.startswith("enum "):
        return load_enum_first(kind.removeprefix("enum "))
    return {"string": "", "int": "0", "bool": False, "float": 0.0}.get(kind, xmlrpc.client.DateTime(0))


@cache
def load_enum_first(name: str) -> str:
    """Return an enumeration's first value."""
    return str(next(each["enums"][name][0] for each in load().values() if name in each["enums"]))


BASIC: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, str) and WHOLE.fullmatch(value) is not None,
    "bool": lambda value: isinstance(value, bool),
    "float": lambda value: isinstance(value, float),
    "datetime": lambda value: isinstance(value, xmlrpc.client.DateTime),
}
ENDINGS: dict[str, Callable[[str, Any], bool]] = {
    " set": lambda inner, value: isinstance(value, list) and all(fits(inner, each) for each in value),
    " record": _is_record,
    " ref": lambda _, value: isinstance(value, str) and REFERENCE.fullmatch(value) is not None,
}
