"""HTTP/1.1 connections as uvicorn serves them, with what it leaves out: the caller's certificate and limits on heads.

A request's head is bounded in size and time before it is taken to memory, its body in time; whatever is not HTTP closes
the connection. Refuses to do: the size of bodies (bounded by the application), authorisation (`gateway.access`).
"""

import asyncio

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.access import STATE_KEY
from gateway.entrance import GUEST_KEY
from transfer.doors import Guest


def connection_type(*, header_bytes_max: int, header_timeout_s: float, body_timeout_s: float) -> type["_Connection"]:
    """Return the protocol class of each connection."""
    return type(
        "BoundedConnection",
        (_Connection,),
        {
            "header_bytes_max": header_bytes_max,
            "header_timeout_s": header_timeout_s,
            "body_timeout_s": body_timeout_s,
        },
    )


class _Connection(HttpToolsProtocol):
    guest: Guest  # set before it begins
    header_bytes_max: int
    header_timeout_s: float
    body_timeout_s: float
    _head_bytes = 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None
    _answering: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # always a TCP transport
        super().connection_made(transport)
        self.guest.turn_out = transport.abort
        secured = transport.get_extra_info("ssl_object")
        certificate = secured.getpeercert(True) if secured is not None else None
        self.app_state = self.app_state | {STATE_KEY: certificate, GUEST_KEY: self.guest}
        self._deadline = self.loop.call_later(self.header_timeout_s, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self.guest.leave()
        if self._answering is not None and not self._answering.response_complete:
            # uvicorn tells only the request that came last. One before it would write to what is closed: in asyncio's
            # TLS, which what follows closes a second time, an AttributeError; in uvloop's nothing but wasted work.
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End at once where nothing is under way: a polite end of TLS would wait for the caller's answer."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            if self._deadline is None:
                self._deadline = self.loop.call_later(self.header_timeout_s, self.transport.abort)
            # The first piece of a body may come with its head, so one read more is let through.
            if self._head_bytes - len(data) > self.header_bytes_max:
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._in_head = True
        self.guest.wake()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_deadline()
        # Else a body that is announced and never comes would hold its connection for ever.
        self._deadline = self.loop.call_later(self.body_timeout_s, self.transport.abort)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._stop_deadline()
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline and (self.cycle is None or self.cycle.response_complete):
            self.guest.rest()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
