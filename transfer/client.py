"""The control plane's client, on trio: one method for each call of the gateway's API (`transfer.api`).

Every call is idempotent at the gateway, so what failed for a reason that may pass (the gateway restarts, is busy, or
went away in mid-answer) is asked again with exponential back-off and jitter, or when the gateway said to come back,
until the caller's patience ends; then the last error is raised. Answers are bounded. Refuses to do: the data plane,
keeping state.
"""

import random
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec
import trio
from msgspec import structs

from transfer.api import (
    Accepted,
    Announcement,
    Commit,
    CommitReceipt,
    Events,
    Go,
    Listing,
    Offer,
    Offered,
    OpenRead,
    OpenTransfer,
    Problem,
    Receipts,
    SignedReceipts,
    Status,
    StoredObject,
    Studies,
    Wanted,
)
from transfer.comeback import spread_s
from transfer.control import tcp_info
from transfer.credentials import Credentials
from transfer.errors import FascicleError, FullError, ProtocolError, UnauthorisedError, UnreachableError, from_code
from transfer.membership import Trust
from transfer.protocol.messages import UNREADABLE, Right
from transfer.tls import client_context, peer_from_der

T = TypeVar("T")
_peer = lru_cache(maxsize=16)(peer_from_der)
ANSWER_BYTES_MAX: Final = 64 << 20
FIRST_PAUSE_S: Final = 0.1
PAUSE_MAX_S: Final = 10.0
BUSY_PATIENCE: Final = 10.0  # times as long, for a gateway that says when to come back
FULL_PATIENCE_S: Final = 6.0  # room is made by people, who should hear of it; heartbeats may be some seconds old
CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 60.0
CONNECTIONS_MAX: Final = 8
SECONDS_MAX: Final = 3600.0


class GatewayClient:
    """Speaks to one gateway with one party's certificate; a context manager, used by many tasks at once.

    Every method raises UnreachableError when no answer came within `patience_s` (seconds; 0: one attempt), and
    otherwise the error that the gateway named; one that is not retryable at once.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        patience_s: float,
        context: ssl.SSLContext | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Prepare; nothing is connected yet.

        Raises:
            SettingsError: the credentials' certificates cannot be used.
        """
        self._patience_s = patience_s
        self._jitter = jitter
        self._url = self.gateway = credentials.gateway
        self.rtt_s = 0.0  # the least round trip of the connection used last, 0.0 while that is not known
        self._http = httpx.AsyncClient(
            base_url=credentials.gateway,
            verify=context or client_context(credentials),
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
            headers={"Accept-Encoding": "identity"},  # nothing is unpacked, so the length that is said is the length
            trust_env=False,
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await self._http.aclose()

    async def open_transfer(self, wish: OpenTransfer, first: Callable[[], list[Offered]] = list) -> Go:
        """Open a transfer. Asked again after a lost answer this opens a second; of the first only claims are left.

        `first` is called once the connection stands, as files are read meanwhile, and anew for each attempt: what it
        returns is offered at once.
        """
        body = _LateBody(lambda: structs.replace(wish, offered=first()))
        return await self._patiently(_post("/api/v1/transfers", body), Go)

    async def renew(self, transfer_id: str) -> Go:
        """Get a new ticket, to the nodes that are live now."""
        return await self._post(_transfer(transfer_id, "ticket"), None, Go)

    async def offer(self, transfer_id: str, objects: Sequence[Offered]) -> Wanted:
        """Say what there is to send (at most `transfer.api.OFFER_OBJECTS_MAX` at once)."""
        return await self._post(_transfer(transfer_id, "offer"), Offer(objects=list(objects)), Wanted)

    async def receipts(self, transfer_id: str, receipts: Sequence[SignedReceipts]) -> Accepted:
        """Hand on what nodes signed."""
        return await self._post(_transfer(transfer_id, "receipts"), Receipts(receipts=list(receipts)), Accepted)

    async def commit(self, transfer_id: str, claim: Commit) -> CommitReceipt:
        """Commit the transfer."""
        return await self._post(_transfer(transfer_id, "commit"), claim, CommitReceipt)

    async def open_read(self, rights: Sequence[Right]) -> Go:
        """Get a ticket to read or check."""
        return await self._post("/api/v1/reads", OpenRead(rights=list(rights)), Go)

    async def announce(self, announcement: Announcement) -> CommitReceipt:
        """Announce objects that came in at a node without a transfer (nodes only)."""
        return await self._post("/api/v1/announcements", announcement, CommitReceipt)

    async def trust(self) -> Trust:
        """Return the keys of tickets and who is revoked (nodes only)."""
        return await self._get("/api/v1/trust", {}, Trust)

    async def list_objects(
        self,
        *,
        study: str | None = None,
        series: str | None = None,
        object_id: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Listing:
        """Return one page of committed objects."""
        wanted = {"study": study, "series": series, "object": object_id, "after": after, "limit": limit}
        return await self._get("/api/v1/objects", wanted, Listing)

    async def iterate_objects(
        self, *, study: str | None = None, series: str | None = None, object_id: str | None = None
    ) -> AsyncIterator[StoredObject]:
        """Yield all committed objects that fit, in the order of their ids."""
        after: str | None = None
        while True:
            page = await self.list_objects(study=study, series=series, object_id=object_id, after=after)
            for stored in page.objects:
                yield stored
            if page.next is None:
                return
            after = page.next

    async def list_studies(self, *, after: str | None = None, limit: int | None = None) -> Studies:
        """Return one page of studies."""
        return await self._get("/api/v1/studies", {"after": after, "limit": limit}, Studies)

    async def list_events(self, *, after: int = 0, limit: int | None = None) -> Events:
        """Return one page of events."""
        return await self._get("/api/v1/events", {"after": after, "limit": limit}, Events)

    async def status(self) -> Status:
        """Return nodes, space and transfers."""
        return await self._get("/api/v1/status", {}, Status)

    async def _post(self, path: str, body: msgspec.Struct | None, kind: type[T]) -> T:
        return await self._patiently(_post(path, b"" if body is None else msgspec.json.encode(body)), kind)

    async def _get(self, path: str, wanted: dict[str, Any], kind: type[T]) -> T:
        given = {key: value for key, value in wanted.items() if value is not None}
        return await self._patiently({"method": "GET", "url": path, "params": given}, kind)

    async def _patiently(self, request: dict[str, Any], kind: type[T]) -> T:
        started_s = trio.current_time()
        deadline_s = started_s + self._patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self._once(request, kind)
            except FascicleError as error:
                wait_s = pause_s * (0.5 + self._jitter() / 2)
                if error.retry_after_s:
                    deadline_s = started_s + self._patience_s * BUSY_PATIENCE
                    wait_s = spread_s(error.retry_after_s, self._jitter())
                if isinstance(error, FullError):
                    deadline_s = min(deadline_s, started_s + FULL_PATIENCE_S)
                if not error.retryable or trio.current_time() + wait_s > deadline_s:
                    raise
            await trio.sleep(wait_s)
            pause_s = min(pause_s * 2, PAUSE_MAX_S)

    async def _once(self, request: dict[str, Any], kind: type[T]) -> T:
        try:
            async with self._http.stream(**request) as response:
                _check_role(response)
                body = await _bounded(response)
                self.rtt_s = _rtt_s(response)
        except httpx.HTTPError as error:
            raise UnreachableError(f"the gateway at {self._url} does not answer: {_reason(error)}") from error
        if response.status_code == httpx.codes.OK:
            return _decode(body, kind)
        problem = _problem(response.status_code, body)
        problem.retry_after_s = problem.retry_after_s or _retry_after_s(response)
        raise problem


class _LateBody:
    """A request's body that is made when its head has been sent; it goes as one chunk."""

    def __init__(self, make: Callable[[], msgspec.Struct]) -> None:
        self._make = make

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield msgspec.json.encode(self._make())


def _post(path: str, content: bytes | _LateBody) -> dict[str, Any]:
    return {"method": "POST", "url": path, "content": content, "headers": {"Content-Type": "application/json"}}


def _reason(error: httpx.HTTPError) -> str:
    """Say why there was no answer; errors of time have no text of their own."""
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT_S:.0f} s"
    if isinstance(error, httpx.TimeoutException):
        return f"nothing came within {ANSWER_TIMEOUT_S:.0f} s"
    reason = str(error) or type(error).__name__
    # TLS 1.3: a server refuses a client's certificate by closing when the client has begun to speak.
    hint = "" if isinstance(error, httpx.ConnectError) else "; if it runs, it does not accept this certificate"
    return reason + hint


async def _bounded(response: httpx.Response) -> bytes:
    """Read an answer that says its length beforehand, as the gateway's all do; others are not begun."""
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal() or int(length) > ANSWER_BYTES_MAX:
        raise ProtocolError(f"the answer has no length, or more than {ANSWER_BYTES_MAX} bytes; is this a gateway?")
    return b"".join([piece async for piece in response.aiter_raw()])


def _check_role(response: httpx.Response) -> None:
    """Check that the answer is a gateway's: another party of the cluster may be reached by the same name."""
    stream = response.extensions.get("network_stream")
    secured = stream.get_extra_info("ssl_object") if stream is not None else None
    if secured is None:
        return
    peer = _peer(secured.getpeercert(True))
    if peer.role != "gateway":
        raise UnauthorisedError(f"{peer.name[:64]} answers as {peer.role[:32]} where a gateway should; look at its URL")


def _rtt_s(response: httpx.Response) -> float:
    stream = response.extensions.get("network_stream")
    socket = stream.get_extra_info("socket") if stream is not None else None
    info = tcp_info.read(socket) if socket is not None else None
    return info.min_rtt_s if info is not None else 0.0


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise ProtocolError(f"the gateway's answer is not a {kind.__name__}: {error}") from error


def _problem(status: int, body: bytes) -> FascicleError:
    """Return the error that the answer names; one without a name may pass if it is the server's own (5xx)."""
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except UNREADABLE:
        kind = UnreachableError if status >= 500 else ProtocolError
        return kind(f"the gateway answers with status {status}; is it a Fascicle gateway?")
    if problem.code == "internal" and problem.retryable:
        return UnreachableError(problem.message)
    return from_code(problem.code, problem.message)


def _retry_after_s(response: httpx.Response) -> float:
    """Return when to come back, 0.0 where the answer does not say (or says a date, which the gateway never does)."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), SECONDS_MAX) if text.isdecimal() else 0.0


def _transfer(transfer_id: str, step: str) -> str:
    return f"/api/v1/transfers/{quote(transfer_id, safe='')}/{step}"
