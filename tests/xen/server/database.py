"""The server's database: records by class and reference, a count that grows with each change, and the generic calls.

Getters and setters of fields, maps and sets, `get_all`, `get_record`, ... are made from the data model, not written.
"""

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.xen.server import model
from tests.xen.server.model import NULL, Violation

Record = dict[str, Any]


def plain_copy(value: Any) -> Any:
    """Return a copy of a value of dictionaries, lists and what never changes."""
    if isinstance(value, dict):
        return {key: plain_copy(each) for key, each in value.items()}
    return [plain_copy(each) for each in value] if isinstance(value, list) else value


class Failure(Exception):
    """An error that XenAPI answers with."""

    def __init__(self, *words: str) -> None:
        super().__init__(*words)
        self.words = list(words)


class Database:
    """All records; every access is under `changed`, which is told of changes."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.records: dict[str, dict[str, Record]] = {name: {} for name in model.load()}
        self.count = 0
        self.changes: dict[tuple[str, str], int] = {}
        self.removed: list[tuple[int, str, str]] = []

    def make(self, name: str, **values: Any) -> str:
        """Add a record with these values, the model's defaults and empty values for the rest; return its reference."""
        reference = f"OpaqueRef:{uuid.uuid4()}"
        fields = model.load()[name]["fields"]
        record = {key: model.zero(kind) for key, (kind, *_) in fields.items()}
        assert values.keys() <= fields.keys(), values.keys() - fields.keys()
        if "uuid" in fields:
            record["uuid"] = str(uuid.uuid4())
        with self.changed:
            self.records[name][reference] = record | plain_copy(values)
            self.touch(name, reference)
        return reference

    def get(self, name: str, reference: str) -> Record:
        """Return a record itself."""
        try:
            return self.records[name][reference]
        except KeyError:
            raise Failure("HANDLE_INVALID", name, reference) from None

    def set(self, name: str, reference: str, **values: Any) -> None:
        """Change fields."""
        with self.changed:
            self.get(name, reference).update(values)
            self.touch(name, reference)

    def remove(self, name: str, reference: str) -> None:
        """Remove a record."""
        with self.changed:
            self.get(name, reference)
            del self.records[name][reference]
            self.changes.pop((name, reference), None)
            self.count += 1
            self.removed.append((self.count, name, reference))
            self.changed.notify_all()

    def forget(self, name: str) -> None:
        """Remove all records of a class without a word, as a coordinator does that never had them."""
        with self.changed:
            for reference in self.records[name]:
                self.changes.pop((name, reference), None)
            self.records[name].clear()

    def touch(self, name: str, reference: str) -> None:
        """Say that a record has changed."""
        self.count += 1
        self.changes[name, reference] = self.count
        self.changed.notify_all()

    def pick(self, name: str, **values: Any) -> list[str]:
        """Return the references of the records with these values."""
        with self.changed:
            rows = self.records[name].items()
            return [key for key, each in rows if all(each[field] == value for field, value in values.items())]

    @contextmanager
    def operation(self, name: str, reference: str, task: str, what: str) -> Iterator[None]:
        """Show an operation under way on an object."""
        with self.changed:
            self.get(name, reference)["current_operations"][task] = what
            self.touch(name, reference)
        try:
            yield
        finally:
            with self.changed:
                if reference in self.records[name]:
                    self.records[name][reference]["current_operations"].pop(task, None)
                    self.touch(name, reference)

    def generic(self, name: str, method: str) -> Callable[..., Any] | None:
        """Return the generic call of that name; None where the model's message needs code of its own."""
        fixed = {
            "get_all": lambda: list(self.records[name]),
            "get_all_records": lambda: plain_copy(self.records[name]),
            "get_record": lambda self_: plain_copy(self.get(name, self_)),
            "get_by_uuid": lambda text: self._by_uuid(name, text),
            "get_by_name_label": lambda text: self.pick(name, name_label=text),
        }
        if method in fixed:
            return fixed[method]
        fields = model.load()[name]["fields"]
        for prefix, call in (
            ("get_", self._getter),
            ("set_", self._setter),
            ("add_to_", self._adder),
            ("remove_from_", self._remover),
        ):
            if method.startswith(prefix) and method.removeprefix(prefix) in fields:
                return call(name, method.removeprefix(prefix))
        return None

    def _by_uuid(self, name: str, text: str) -> str:
        found = self.pick(name, uuid=text)
        if not found:
            raise Failure("UUID_INVALID", name, text)
        return found[0]

    def _getter(self, name: str, field: str) -> Callable[..., Any]:
        return lambda reference: plain_copy(self.get(name, reference)[field])

    def _setter(self, name: str, field: str) -> Callable[..., Any]:
        return lambda reference, value: self.set(name, reference, **{field: value}) or ""

    def _adder(self, name: str, field: str) -> Callable[..., Any]:
        def add(reference: str, key: str, value: str) -> str:
            entries = self.get(name, reference)[field]
            if key in entries:
                raise Failure("MAP_DUPLICATE_KEY", name, field, reference, key)
            self.set(name, reference, **{field: entries | {key: value}})
            return ""

        return add

    def _remover(self, name: str, field: str) -> Callable[..., Any]:
        def remove(reference: str, key: str) -> str:
            entries = self.get(name, reference)[field]
            self.set(name, reference, **{field: {k: v for k, v in entries.items() if k != key}})
            return ""

        return remove


__all__ = ["NULL", "Database", "Failure", "Violation"]
