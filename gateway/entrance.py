"""Where every request enters: its connection gets a place, its body is held within one budget, or it hears 503.

Whoever shows a certificate of the cluster's authority is known, and gets a place with the first request. Without one,
or with one that was revoked, a connection stays a stranger, whatever it asks for: `/health`, `/metrics`, enrolment; a
place that was given before the revocation ends with the next answer. Bodies are counted as they arrive. A refusal says
when to come back (Retry-After). Refuses to do: judging roles (`gateway.access`), HTTP.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from gateway.access import STATE_KEY, peer_from_certificate
from transfer.api import Problem
from transfer.doors import Doors, Guest
from transfer.errors import BusyError, FascicleError, ProtocolError, UnauthorisedError
from transfer.tls import Peer

GUEST_KEY: Final = "guest"  # where `gateway.connections` leaves it
STRANGERS_BODY_BYTES_MAX: Final = 64 << 10  # an enrolment has 2 KiB
BODIES_BYTES_MAX: Final = 64 << 20  # decoded they take two or three times as much
PARTY_SHARE: Final = 2  # one party may have a half
App = Callable[[Any, Any, Any], Awaitable[None]]


class Bodies:
    """The bytes of bodies in memory, of all requests together and of each party. Pure."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._party_bytes: dict[str, int] = {}
        self.bytes = 0

    def take(self, party: str, count: int) -> bool:
        """Take `count` bytes of a party's body; tells whether there was room, else nothing is taken."""
        mine = self._party_bytes.get(party, 0) + count
        if self.bytes + count > self._bytes_max or mine > self._bytes_max // PARTY_SHARE:
            return False
        self._party_bytes[party] = mine
        self.bytes += count
        return True

    def give_back(self, party: str, count: int) -> None:
        """Give back what was taken."""
        self.bytes -= count
        left = self._party_bytes.get(party, 0) - count
        if left > 0:
            self._party_bytes[party] = left
        else:
            self._party_bytes.pop(party, None)


class Entrance:
    """The ASGI application around the application."""

    def __init__(
        self,
        app: App,
        doors: Doors,
        is_revoked: Callable[[Peer], bool],
        *,
        bodies_bytes_max: int = BODIES_BYTES_MAX,
    ) -> None:
        self._app, self._doors, self._is_revoked = app, doors, is_revoked
        self._bodies = Bodies(bodies_bytes_max)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let one request in, or answer it."""
        state = scope["state"]
        guest: Guest = state[GUEST_KEY]
        try:
            party = self._admit(guest, state[STATE_KEY])
        except FascicleError as error:
            await _answer(send, error)
            return
        if guest.is_known and not party:
            send = _closing(send)  # revoked since it was given its place
        body = _Body(self._bodies, self._doors, party, receive)
        # Nothing here goes by the name that a caller uses; the framework makes a URL of it, and fails on what is none.
        named = scope | {"headers": [header for header in scope["headers"] if header[0] != b"host"]}
        try:
            await self._app(named, body.receive, send)
        finally:
            body.end()

    def _admit(self, guest: Guest, certificate: bytes | None) -> str:
        """Return the party's name, "" for a stranger.

        Raises:
            BusyError: there is no place for it.
        """
        if certificate is None:
            return ""
        try:
            peer = peer_from_certificate(certificate)
        except UnauthorisedError:
            return ""  # a certificate that names nobody: refused by the table of roles
        if self._is_revoked(peer):
            return ""
        guest.admit(peer.name, ours=peer.role == "node")
        return peer.name


class _Body:
    """One request's body, counted while it comes; "" is the party of all strangers."""

    def __init__(self, bodies: Bodies, doors: Doors, party: str, receive: Any) -> None:
        self._bodies, self._doors, self._party, self._receive = bodies, doors, party, receive
        self._bytes = 0

    async def receive(self) -> Any:
        message = await self._receive()
        count = len(message.get("body", b""))
        if not count:
            return message
        if not self._party and self._bytes + count > STRANGERS_BODY_BYTES_MAX:
            raise ProtocolError(f"a body of more than {STRANGERS_BODY_BYTES_MAX} bytes without a certificate")
        if not self._bodies.take(self._party, count):
            raise self._doors.refusal("the gateway has as many bodies of requests in memory as it may")
        self._bytes += count
        return message

    def end(self) -> None:
        self._bodies.give_back(self._party, self._bytes)


def _closing(send: Any) -> Any:
    """Return a `send` whose answer is the last one of its connection."""

    async def send_last(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = message | {"headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_last


async def _answer(send: Any, error: FascicleError) -> None:
    problem = Problem(code=error.code, message=error.message, retryable=error.retryable)
    body = msgspec.json.encode(problem)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *retry_after(error),
    ]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def retry_after(error: FascicleError) -> list[tuple[bytes, bytes]]:
    """Return the header that says when to come back, none where it is not known."""
    if not isinstance(error, BusyError) or not error.retry_after_s:
        return []
    return [(b"retry-after", str(math.ceil(error.retry_after_s)).encode())]
