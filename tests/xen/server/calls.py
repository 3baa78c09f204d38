"""Judges and answers calls: sessions, the data model's types, tasks, events, injected errors; then the call itself."""

import threading
import time
import uuid
import xmlrpc.client
from collections.abc import Callable
from typing import Any

from tests.xen.server import model
from tests.xen.server.database import NULL, Failure, Violation, plain_copy
from tests.xen.server.machines import Machines
from tests.xen.server.pool import Pool

READS = ("get_", "assert_", "from")


class Calls:
    """Answers XenAPI's calls for one pool. `before` and `after` are told of each call that changes something."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.base = pool, pool.database
        self.written = Machines(pool).names() | {
            "session.logout": self._log_out,
            "pool.designate_new_master": lambda host, **_: self.pool.fail_over(host) or "",
            "task.create": self._create_task,
            "task.destroy": lambda task, **_: self.base.remove("task", task) or "",
            "task.cancel": self._cancel_task,
            "event.from": self._events,
        }
        self.before: Callable[[str], None] = lambda method: None
        self.after: Callable[[str], None] = lambda method: None

    def answer(self, host: str, method: str, values: tuple[Any, ...]) -> Any:
        """Return the value of a call that came in at a host.

        Raises:
            Failure, Violation: what is answered instead.
        """
        plain = method.removeprefix("Async.")
        self.pool.calls[plain] += 1
        model.check_parameters(plain, values)
        if plain != method and model.message(plain).get("implicit"):
            raise Violation("MESSAGE_METHOD_UNKNOWN", method)
        if host != self.pool.coordinator and method != "session.local_logout":
            raise Failure("HOST_IS_SLAVE", self.base.get("host", self.pool.coordinator)["address"])
        if method == "session.login_with_password":
            self._raise_injected(method)
            return self._log_in(host, *values)
        self._check_session(values[0])
        changes = not plain.rpartition(".")[2].startswith(READS)
        if changes:
            self.before(plain)
        found = (
            self._begin(plain, values)
            if plain != method
            else self.run(plain, values[1:] if plain != "session.logout" else values)
        )
        if changes:
            self.after(plain)
        return found

    def run(self, method: str, values: tuple[Any, ...], **more: Any) -> Any:
        """Carry a call out."""
        self._raise_injected(method)
        name, _, rest = method.partition(".")
        if name == "VM_group" and not self.pool.groups:
            raise Failure("MESSAGE_METHOD_UNKNOWN", method)
        with self.base.changed if method not in SLOW else _nothing():
            if method in self.written:
                return self.written[method](*values, **more)
            call = self.base.generic(name, rest)
            if call is None:
                raise Failure("NOT_IMPLEMENTED", method)
            return call(*values)

    def _raise_injected(self, method: str) -> None:
        injected = self.pool.injected.get(method)
        if injected is not None and injected.times > 0:
            injected.times -= 1
            raise Failure(*injected.words)

    # Sessions

    def _log_in(self, host: str, user: str, secret: str, *_: str) -> str:
        if (user, secret) != (self.pool.user, self.pool.secret):
            raise Failure("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
        session = self.base.make("session", this_host=host, pool=True, originator=_[1])
        self.pool.sessions.add(session)
        return session

    def _check_session(self, session: str) -> None:
        if session not in self.pool.sessions:
            raise Failure("SESSION_INVALID", session)
        self.pool.session_calls[session] += 1
        if self.pool.session_calls_max and self.pool.session_calls[session] > self.pool.session_calls_max:
            self.pool.sessions.discard(session)
            raise Failure("SESSION_INVALID", session)

    def _log_out(self, session: str) -> str:
        self.pool.sessions.discard(session)
        self.base.remove("session", session)
        return ""

    # Tasks

    def _create_task(self, label: str, description: str, **_: Any) -> str:
        return self.base.make("task", name_label=label, name_description=description, status="pending")

    def _begin(self, method: str, values: tuple[Any, ...]) -> str:
        task = self.base.make("task", name_label=f"Async.{method}", status="pending")
        worker = threading.Thread(target=self._work, args=(task, method, values), daemon=True)
        worker.start()
        return task

    def _work(self, task: str, method: str, values: tuple[Any, ...]) -> None:
        epoch = self.pool.epoch
        try:
            if self.pool.delays.task:
                time.sleep(self.pool.delays.task / 2)
                self._change_task(task, epoch, progress=0.5)
                time.sleep(self.pool.delays.task / 2)
            result = self.run(method, values[1:], **({"task": task} if method in self.written else {}))
        except Failure as failure:
            status = "cancelled" if failure.words[0] == "TASK_CANCELLED" else "failure"
            self._change_task(task, epoch, status=status, error_info=failure.words)
        else:
            text = f"<value>{result}</value>" if result else ""
            self._change_task(task, epoch, status="success", progress=1.0, result=text)

    def _change_task(self, task: str, epoch: int, **values: Any) -> None:
        with self.base.changed:
            if epoch == self.pool.epoch and task in self.base.records["task"]:
                self.base.set("task", task, **values)

    def _cancel_task(self, task: str, **_: Any) -> str:
        if self.base.get("task", task)["status"] == "pending":
            self.base.set("task", task, status="cancelling")
        return ""

    # Events

    def _events(self, classes: list[str], token: str, timeout: float, **_: Any) -> dict[str, Any]:
        since = self._parse_token(token)
        wanted = [tuple(each.partition("/")[::2]) for each in classes]
        for name, _reference in wanted:
            if name != "*" and name not in model.load():
                raise Failure("EVENT_SUBSCRIPTION_PARSE_FAILURE", name)
        deadline = time.monotonic() + timeout
        epoch = self.pool.epoch
        with self.base.changed:
            while not (events := self._since(wanted, since, token)) and (left := deadline - time.monotonic()) > 0:
                self.base.changed.wait(left)
                if self.pool.epoch != epoch:
                    raise Failure("SESSION_INVALID", "the coordinator has changed")
            counts = {name: len(self.base.records[name]) for name, _reference in wanted if name != "*"}
            return {"token": f"{self.base.count},{epoch}", "valid_ref_counts": counts, "events": events}

    def _parse_token(self, token: str) -> int:
        if not token:
            return 0
        count, _, epoch = token.partition(",")
        if epoch != str(self.pool.epoch) or not count.isdecimal():
            raise Failure("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
        return int(count)

    def _since(self, wanted: list[tuple[str, str]], since: int, token: str) -> list[dict[str, Any]]:
        found = [
            self._event(count, name, reference, "mod" if token else "add")
            for (name, reference), count in self.base.changes.items()
            if count > since and _is_wanted(wanted, name, reference)
        ]
        gone = [
            self._event(count, name, reference, "del")
            for count, name, reference in self.base.removed
            if token and count > since and _is_wanted(wanted, name, reference)
        ]
        return sorted([*found, *gone], key=lambda each: int(each["id"]))

    def _event(self, count: int, name: str, reference: str, operation: str) -> dict[str, Any]:
        record = plain_copy(self.base.records[name].get(reference, {}))
        return {
            "id": str(count),
            "timestamp": xmlrpc.client.DateTime(int(time.time())),
            "class": name.lower(),
            "operation": operation,
            "ref": reference,
            "obj_uuid": record.get("uuid", ""),
            **({"snapshot": record} if operation != "del" else {}),
        }


SLOW = frozenset({"event.from", "VM.clone", "VM.copy", "VM.clean_shutdown"})  # they wait, and lock by themselves


class _nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _is_wanted(wanted: list[tuple[str, str]], name: str, reference: str) -> bool:
    return any(each in ("*", name) and only in ("", reference) for each, only in wanted)


__all__ = ["NULL", "Calls", "uuid"]
