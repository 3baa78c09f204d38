"""Where an audit trail ends, as a crash, a power cut or a failed flush left it.

What is before the anchor was flushed before the anchor was, and is trusted here. Behind it the last group that was
written may be in pieces: half a line, zeros where a power cut overtook the flush (seen on ext4), and whole lines behind
a hole, because blocks reach a disk in any order. Nobody was answered for that group: it ends before its first unsound
line. And sound lines may be in the kernel's memory alone, where their flush failed: whoever goes on behind them writes
them again. Without an anchor the last whole line decides. Refuses to do: changing anything, checking what is before the
anchor (`gateway.audit.verify`).
"""

import io
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway import trail
from gateway.trail import Head
from transfer.errors import CorruptError, SettingsError

TAIL_BYTES: Final = 1 << 20


class End(NamedTuple):
    """Behind which line and where the trail ends, how much is cut off, and the end that is to be written again."""

    head: Head
    size_bytes: int
    torn_bytes: int
    unsettled: bytes


def read_end(path: Path, anchors: list[Head], key: Ed25519PublicKey, *, group_max: int) -> End:
    """Read the end of the trail at `path`; no more than `group_max` lines were written in one group.

    Raises:
        SettingsError: unreadable, shorter than its anchor, or damaged otherwise than by a crash.
    """
    anchor = max(anchors, key=lambda head: head.count, default=trail.START)
    start, tail = _read_tail(path)
    settled = _behind(anchor, tail) if anchors else None
    try:
        if settled is None:
            head, sound_bytes = _last_line(tail, key)
        else:
            head, sound_bytes = _follow(anchor, tail[settled:], key, group_max)
    except CorruptError as error:
        raise SettingsError(f"{path}: {error.message}; see `fascicle audit verify`") from error
    if anchor.count > head.count:
        raise SettingsError(
            f"{path} ends at line {head.count} and was {anchor.count} lines long: put it back, "
            f"or move it and audit.anchor away to begin a new one"
        )
    size = (settled or 0) + sound_bytes
    return End(head, start + size, len(tail) - size, tail[settled or 0 : size])


def _read_tail(path: Path) -> tuple[int, bytes]:
    """Return the last bytes, and where they begin.

    Raises:
        SettingsError: they cannot be read, or are no lines.
    """
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            start = file.seek(max(0, size_bytes - TAIL_BYTES))
            tail = file.read()
    except FileNotFoundError:
        return 0, b""
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    if start and b"\n" not in tail:
        raise SettingsError(f"{path}: no line in its last {TAIL_BYTES} bytes; is it the audit trail?")
    return start, tail


def _behind(anchor: Head, tail: bytes) -> int | None:
    """Return where in `tail` the line of the anchor ends; None where it is not in it."""
    begins = (b"\n" + tail).rfind(b"\n" + anchor.hash.encode() + b" ")
    ends = tail.find(b"\n", begins)
    return ends + 1 if begins >= 0 and ends >= 0 else None


def _last_line(tail: bytes, key: Ed25519PublicKey) -> tuple[Head, int]:
    """Return the head behind the last whole line, and where it ends.

    Raises:
        CorruptError: it is not one of this gateway's.
    """
    whole, newline, _ = tail.rpartition(b"\n")
    if not newline:
        return trail.START, 0
    return trail.last(whole.rpartition(b"\n")[2] + newline, key), len(whole) + 1


def _follow(head: Head, lines: bytes, key: Ed25519PublicKey, group_max: int) -> tuple[Head, int]:
    """Return the head behind the last line that follows `head`, and where it ends.

    Raises:
        CorruptError: one does not, and more come behind it than a crash leaves of one group.
    """
    end = 0
    for line in io.BytesIO(lines):
        try:
            head = trail.follow(head, line, key)
        except CorruptError:
            if lines.count(b"\n", end) > group_max:
                raise
            break
        end += len(line)
    return head, end
