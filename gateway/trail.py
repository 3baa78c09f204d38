"""The audit trail's form: one line an event, each bound to the line before it, each signed; pure.

    line      hash 64 | space | signature 128 | space | JSON | newline         hash and signature in hex
    hash      SHA-256 of the hash of the line before (64 zeros before the first) and the JSON's bytes
    signature Ed25519 by the gateway's identity over `CONTEXT` and the hash
    JSON      {"n": 1, "at": UTC, "event": NAME, "by": party, ...}             n counts from 1 without a gap

A line that was changed, removed, put elsewhere or added by another hand does not fit the next one, or the signature.
What is cut off at the end leaves a sound beginning: only an anchor kept elsewhere (number and hash of some line) tells.
Refuses to do: files (`gateway.audit`), patient data: fields are names of parties, ids and counts.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from transfer.errors import CorruptError, SettingsError
from transfer.protocol.messages import UNREADABLE

CONTEXT: Final = b"fascicle audit 1\n"
ANCHOR: Final = re.compile(r"(0|[1-9][0-9]{0,14}):([0-9a-f]{64})")
_LINE: Final = re.compile(rb"([0-9a-f]{64}) ([0-9a-f]{128}) (\{.*\})")


class Head(msgspec.Struct, frozen=True):
    """Where the trail ends: its number of lines, and the hash of the last."""

    count: int
    hash: str

    def __str__(self) -> str:
        return f"{self.count}:{self.hash}"


START: Final = Head(0, "0" * 64)


class _Numbered(msgspec.Struct, frozen=True):
    n: int


def read_anchor(text: str) -> Head:
    """Read an anchor as it is printed, COUNT:HASH.

    Raises:
        SettingsError: not an anchor.
    """
    match = ANCHOR.fullmatch(text.strip())
    if match is None:
        raise SettingsError("an anchor is COUNT:HASH, as `fascicle audit anchor` prints it")
    return Head(int(match[1]), match[2])


def append(head: Head, entry: dict[str, Any], key: Ed25519PrivateKey) -> tuple[Head, bytes]:
    """Return the line of `entry` behind `head`, and the head behind it."""
    body = msgspec.json.encode({"n": head.count + 1, **entry})
    digest = _hash(head.hash, body)
    signature = key.sign(CONTEXT + digest.encode()).hex()
    return Head(head.count + 1, digest), f"{digest} {signature} ".encode() + body + b"\n"


def follow(head: Head, line: bytes, key: Ed25519PublicKey) -> Head:
    """Return the head behind `line` (with its newline), which must be the one that follows `head`.

    Raises:
        CorruptError: it is not; which line, and in what.
    """
    where = f"line {head.count + 1}"
    found, body = _read(line, where, key)
    if found.hash != _hash(head.hash, body):
        raise CorruptError(f"{where} of the audit trail was changed, or lines before it were removed, added or moved")
    if found.count != head.count + 1:
        raise CorruptError(f"{where} of the audit trail says that it is line {found.count}")
    return found


def last(line: bytes, key: Ed25519PublicKey) -> Head:
    """Return the head behind `line`, whatever is before it.

    Raises:
        CorruptError: it is not a line that this gateway wrote.
    """
    return _read(line, "the last line", key)[0]


def body_of(line: bytes) -> bytes:
    """Return a line's JSON, without its newline or with it; nothing is checked but the form.

    Raises:
        CorruptError: not a line.
    """
    match = _LINE.fullmatch(line.removesuffix(b"\n"))
    if match is None:
        raise CorruptError("a line of the audit trail is cut or none")
    return match[3]


def _read(line: bytes, where: str, key: Ed25519PublicKey) -> tuple[Head, bytes]:
    match = _LINE.fullmatch(line.removesuffix(b"\n"))
    if match is None or not line.endswith(b"\n"):
        raise CorruptError(f"{where} of the audit trail is cut or none")
    digest, signature, body = match[1].decode(), bytes.fromhex(match[2].decode()), match[3]
    try:
        key.verify(signature, CONTEXT + digest.encode())
        return Head(msgspec.json.decode(body, type=_Numbered).n, digest), body
    except InvalidSignature as error:
        raise CorruptError(f"{where} of the audit trail was changed, or not written by this gateway") from error
    except UNREADABLE as error:
        raise CorruptError(f"{where} of the audit trail has no number") from error


def verify(lines: Iterable[bytes], key: Ed25519PublicKey, anchors: Iterable[Head] = ()) -> Head:
    """Check every line, and that the trail still goes through every anchor; return where it ends.

    Raises:
        CorruptError: the first thing that is wrong.
    """
    waiting: dict[int, set[str]] = {}
    for anchor in anchors:
        waiting.setdefault(anchor.count, set()).add(anchor.hash)
    head = START
    _meet(head, waiting)
    for line in lines:
        head = follow(head, line, key)
        _meet(head, waiting)
    if waiting:
        raise CorruptError(
            f"the audit trail ends at line {head.count} and an anchor says {max(waiting)}: lines were cut off its end"
        )
    return head


def _meet(head: Head, waiting: dict[int, set[str]]) -> None:
    if any(digest != head.hash for digest in waiting.pop(head.count, ())):
        raise CorruptError(f"line {head.count} of the audit trail is not the one that the anchor was taken of")


def _hash(previous: str, body: bytes) -> str:
    return hashlib.sha256(previous.encode() + body).hexdigest()
