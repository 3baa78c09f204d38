"""The audit trail on disk: DATA/audit.log, and DATA/audit.anchor, which says how long it was at the latest.

One thread appends; entries that wait together share one flush, and `note` returns after it: what is answered is
written. Refusals do not wait, and beyond `REFUSALS_MAX` a minute they are counted in the next one's line, so that a
flood of them fills no disk. The anchor file follows within `ANCHOR_S`; it tells a cut by accident, not one by somebody
who can write here: for that, anchors are kept elsewhere (docs/security.md). A group for which the disk had no room
fails, and the next one is tried. After any other failure nothing more is written or answered, because nobody knows
what is on the disk; `failure` tells whoever can start the gateway anew.

What a failed flush was of may be in the kernel's memory alone, and is not written from there any more: a start writes
again what is behind the anchor, and cuts off what a crash left in pieces there (`gateway.trail_end`). Refuses to do:
deciding what is noted, patient data.
"""

import asyncio
import queue
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway import trail
from gateway.clock import utc_now
from gateway.trail import Head
from gateway.trail_end import read_end
from transfer import disk
from transfer.durable import write_file_durably
from transfer.errors import BusyError, FascicleError, FullError, SettingsError, StorageError
from transfer.log import get_logger
from transfer.protocol.messages import UNREADABLE
from transfer.tally import Tally

GROUP_MAX: Final = 256
WAITING_MAX: Final = 4096
ANCHOR_S: Final = 1.0
REFUSALS_MAX: Final = 60
REFUSALS_S: Final = 60.0
_Waiting = tuple[dict[str, Any], "Future[None] | None"]


def log_path(data: Path) -> Path:
    """Return where a gateway's trail is."""
    return data / "audit.log"


def verify(data: Path, key: Ed25519PublicKey, anchors: list[Head]) -> Head:
    """Check the whole trail of a gateway's data folder, its own anchor too; return where it ends.

    Raises:
        CorruptError: the first thing that is wrong with it.
        SettingsError: it cannot be read.
    """
    try:
        with log_path(data).open("rb") as lines:
            return trail.verify(lines, key, [*anchors, *_read_anchor(data)])
    except OSError as error:
        raise SettingsError(f"{log_path(data)}: cannot be read: {error.strerror}") from error


class Audit:
    """The open trail."""

    def __init__(self, data: Path, key: Ed25519PrivateKey) -> None:
        """Open it, or begin it; lines that a crash left in pieces, and that nobody was answered for, are cut off.

        Raises:
            SettingsError: it cannot be opened, or is damaged: `fascicle audit verify` says where.
            StorageError: the disk failed.
        """
        self._data, self._key = data, key
        end = read_end(log_path(data), _read_anchor(data), key.public_key(), group_max=GROUP_MAX)
        self.head, self._size_bytes = end.head, end.size_bytes
        self._descriptor = disk.open_or_create(str(log_path(data)))
        if end.torn_bytes:
            disk.truncate(self._descriptor, end.size_bytes)
        disk.write_at(self._descriptor, [end.unsettled], end.size_bytes - len(end.unsettled))
        disk.flush_folder(str(data))
        self._refusals, self._full = _Refusals(), Tally()
        self.failure: Future[FascicleError] = Future()  # done when the trail cannot go on
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(WAITING_MAX)
        self._thread = threading.Thread(target=self._serve, name="audit", daemon=True)
        self._thread.start()
        if end.torn_bytes:
            self.note_nowait("trail_mended", "", cut_bytes=end.torn_bytes)

    async def note(self, event: str, by: str, **fields: Any) -> None:
        """Write one entry, durably.

        Raises:
            BusyError: too many wait.
            FullError, StorageError: it cannot be written; the step that it is of must not be answered.
        """
        done: Future[None] = Future()
        self._put(_entry(event, by, fields), done)
        await asyncio.wrap_future(done)

    def note_nowait(self, event: str, by: str, **fields: Any) -> None:
        """Write one entry soon."""
        try:
            self._put(_entry(event, by, fields), None)
        except BusyError:
            get_logger().warning("audit_left_out", event_left_out=event)

    def refused(self, operation: str, by: str, role: str, code: str) -> None:
        """Write soon that somebody was refused something."""
        left_out = self._refusals.count(time.monotonic())
        if left_out is not None:
            more = {"left_out": left_out} if left_out else {}
            self.note_nowait("access_refused", by, role=role, operation=operation, code=code, **more)

    def close(self) -> None:
        """Write what waits, then close."""
        self._waiting.put(None)
        self._thread.join()
        disk.close(self._descriptor)

    def _put(self, entry: dict[str, Any], done: "Future[None] | None") -> None:
        try:
            self._waiting.put_nowait((entry, done))
        except queue.Full as error:
            raise BusyError("the audit trail is overloaded; try again") from error

    def _serve(self) -> None:
        anchored, anchored_s = trail.START, 0.0
        stop = False
        while not stop:
            group, stop = self._gather(ANCHOR_S)
            if group:
                self._write_group(group)
            if self.head != anchored and (stop or time.monotonic() - anchored_s >= ANCHOR_S):
                anchored, anchored_s = self._write_anchor(), time.monotonic()

    def _gather(self, patience_s: float) -> tuple[list[_Waiting], bool]:
        group: list[_Waiting] = []
        try:
            while len(group) < GROUP_MAX:
                item = self._waiting.get(timeout=patience_s) if not group else self._waiting.get_nowait()
                if item is None:
                    return group, True
                group.append(item)
        except queue.Empty:
            pass
        return group, False

    def _write_group(self, group: list[_Waiting]) -> None:
        problem: FascicleError | None = StorageError("the audit trail failed before; start the gateway anew")
        if not self.failure.done():
            problem = self._append([entry for entry, _ in group])
        for _, done in group:
            if done is not None and done.set_running_or_notify_cancel():
                if problem is None:
                    done.set_result(None)
                else:
                    done.set_exception(problem)

    def _append(self, entries: list[dict[str, Any]]) -> FascicleError | None:
        """Write and flush; a failure is final, but for a write that found no room, which is taken back."""
        head, lines = self.head, []
        for entry in entries:
            head, line = trail.append(head, entry, self._key)
            lines.append(line)
        data = b"".join(lines)
        try:
            self._write(data)
        except FullError as error:
            if count := self._full.note(time.monotonic()):
                get_logger().error("audit_full", reason=error.message, count=count)
            return error
        except FascicleError as error:
            get_logger().error("audit_failed", reason=error.message)
            self.failure.set_result(error)
            return error
        self.head, self._size_bytes = head, self._size_bytes + len(data)
        return None

    def _write(self, data: bytes) -> None:
        """Make `data` the durable end of the file.

        Raises:
            FullError: no room, and nothing of it is left.
            StorageError: it is not known how much is there.
        """
        try:
            disk.write_at(self._descriptor, [data], self._size_bytes)
        except FullError:
            try:
                disk.truncate(self._descriptor, self._size_bytes)
                disk.flush_data(self._descriptor)
            except FascicleError as error:
                raise StorageError(f"the audit trail cannot be cut back: {error.message}") from error
            raise
        try:
            disk.flush_data(self._descriptor)
        except FullError as error:  # the kernel has forgotten what it could not write
            raise StorageError(f"the audit trail cannot be flushed: {error.message}") from error

    def _write_anchor(self) -> Head:
        try:
            write_file_durably(self._data / "audit.anchor", msgspec.json.encode(self.head))
        except FascicleError as error:
            get_logger().warning("audit_anchor_not_written", reason=error.message)
        return self.head


class _Refusals:
    """How many refusals are written a minute."""

    def __init__(self) -> None:
        self._began_s = self._written = self._left_out = 0.0

    def count(self, now_s: float) -> int | None:
        """Return how many were left out since the last that was written; None to leave this one out, too."""
        if now_s - self._began_s >= REFUSALS_S:
            self._began_s, self._written = now_s, 0
        if self._written >= REFUSALS_MAX:
            self._left_out += 1
            return None
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        return int(left_out)


def _entry(event: str, by: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"at": utc_now(), "event": event, "by": by[:64], **fields}


def _read_anchor(data: Path) -> list[Head]:
    """Return the anchor that the gateway wrote here, if there is one.

    Raises:
        SettingsError: it cannot be read.
    """
    path = data / "audit.anchor"
    try:
        return [msgspec.json.decode(path.read_bytes(), type=Head)]
    except FileNotFoundError:
        return []
    except (OSError, *UNREADABLE) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
