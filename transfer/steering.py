"""Steers the number of a transfer's flows: reads the kernel's facts about each, now and then, and asks the controller.

Also keeps what tells in the end what bound the transfer, and a timeline of how it went. Refuses to do: deciding
(`transfer.control.flows`), opening flows (`transfer.fleet`).
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import trio

from transfer.control import flows as control
from transfer.control.readings import Limits, Sample
from transfer.control.sampling import fresh_rtt_s, has_backlog, sample, sample_of_bytes
from transfer.control.tcp_info import TcpInfo
from transfer.errors import FascicleError
from transfer.fleet import Fleet
from transfer.flow import Flow
from transfer.ledger import Ledger
from transfer.link import Link
from transfer.outcomes import Moment
from transfer.pacing import Pacer

SAMPLE_S: Final = 0.1
FIRST_SAMPLE_S: Final = 0.025
FIRST_S: Final = 0.5
ROUND_TRIPS: Final = 1.5
MOMENTS_MAX: Final = 600  # of the timeline; then every second one goes


class Steering:
    """Samples a fleet until it is cancelled; `fixed`: the number of flows is not to be changed."""

    def __init__(self, fleet: Fleet, ledger: Ledger, limits: Limits, link: Link, pacer: Pacer, *, fixed: bool) -> None:
        self._fleet, self._ledger, self._limits, self._fixed = fleet, ledger, limits, fixed
        self._link, self._pacer = link, pacer
        self.state = control.begin(limits)
        self._before: dict[Flow, TcpInfo] = {}
        self._sent_bytes = 0
        self._acked_bytes = self._acked_s = 0.0
        self._every = 1

    async def serve(self) -> None:
        """Take a sample each 0.1 s; at first the link is looked at more often, since so much depends on it."""
        started_s = before_s = trio.current_time()
        number = 0
        async with trio.open_nursery() as self._pings:
            while True:
                first = trio.current_time() - started_s < FIRST_S
                await trio.sleep(FIRST_SAMPLE_S if first else SAMPLE_S)
                now_s = trio.current_time()
                self._take(now_s, now_s - before_s)
                before_s = now_s
                number += 1
                if number % self._every == 0:
                    self._note(now_s - started_s)

    def _take(self, now_s: float, span_s: float) -> None:
        flows, work = self._fleet.flows(), self._ledger.work
        before = self._before
        found = self._read(flows, now_s, span_s)
        if not flows or work.paused:
            return
        goodput_bytes_s = found.goodput_bytes_s
        self._gauge(goodput_bytes_s * span_s, span_s, found.rtt_s)
        if self._pacer.yields:
            self._yield(flows, fresh_rtt_s(_by_id(before), _by_id(self._before)), goodput_bytes_s, now_s, span_s)
        if work.is_empty or self._fixed:
            return  # at the end, when flows have nothing more to send: that says nothing of the link
        wanted = self.state.flows
        self.state = control.advance(self.state, found, self._limits)
        if self.state.flows != wanted:
            self._fleet.want(self.state.flows)

    def _yield(self, flows: list[Flow], rtt_s: float, goodput_bytes_s: float, now_s: float, span_s: float) -> None:
        """Tell the pacer of the path: of the kernel's round trip and that of a PONG the lesser.

        Where little goes the kernel's has the wait of acknowledgements in it, 40 ms and more (RFC 1122); where much
        goes, a PONG has that of the bytes before it, and of busy processors.
        """
        if found := [each for each in (rtt_s, flows[0].take_rtt_s()) if each > 0]:
            self._pacer.observe(rtt_s=min(found), goodput_bytes_s=goodput_bytes_s, now_s=now_s, span_s=span_s)
        self._pings.start_soon(_time_ping, flows[0])

    def _read(self, flows: list[Flow], now_s: float, span_s: float) -> Sample:
        remaining_bytes = self._ledger.remaining_bytes
        infos = {flow: info for flow in flows if (info := flow.tcp_info()) is not None}
        if len(infos) < len(flows):
            sent_bytes, self._sent_bytes = self._sent_bytes, sum(flow.sent_bytes for flow in flows)
            grown = max(0, self._sent_bytes - sent_bytes)
            return sample_of_bytes(
                grown,
                at_s=now_s,
                span_s=span_s,
                open_flows=len(flows),
                link_ratio=1.0,
                remaining_bytes=remaining_bytes,
            )
        before, self._before = self._before, infos
        self._keep_evidence(before, infos)
        return sample(
            _by_id(before),
            _by_id(infos),
            at_s=now_s,
            span_s=span_s,
            open_flows=len(flows),
            remaining_bytes=remaining_bytes,
        )

    def _gauge(self, acked_bytes: float, span_s: float, rtt_s: float) -> None:
        """Tell the link of what went, once a round trip has passed: acknowledgements come in bursts."""
        self._acked_bytes += acked_bytes
        self._acked_s += span_s
        if self._acked_s < ROUND_TRIPS * rtt_s:
            return
        # What is held back waits for its turn, not for the link: then the rate is all that there is.
        is_full = self._is_full() or self._pacer.is_limited
        if is_full or not self._ledger.work.is_exhausted:  # at the end nothing waits, however slow the link
            self._link.take(self._acked_bytes / self._acked_s, is_full=is_full)
        self._acked_bytes = self._acked_s = 0.0

    def _is_full(self) -> bool:
        """Tell whether bytes wait for the link, on half of the flows at least; without TCP_INFO they are said to."""
        waiting = [info.notsent_bytes > 0 for info in self._before.values()]
        return 2 * sum(waiting) >= len(waiting)

    def _keep_evidence(self, before: dict[Flow, TcpInfo], now: dict[Flow, TcpInfo]) -> None:
        kernel = self._ledger.counters.kernel
        kernel.samples += 1
        kernel.with_backlog += has_backlog(_by_id(now))
        for flow, info in now.items():
            past = before.get(flow)
            kernel.busy_s += info.busy_s - (past.busy_s if past else 0.0)
            kernel.rwnd_limited_s += info.rwnd_limited_s - (past.rwnd_limited_s if past else 0.0)

    def _note(self, at_s: float) -> None:
        counters = self._ledger.counters
        sent_bytes = counters.wire_bytes + sum(flow.sent_bytes for flow in self._fleet.flows())
        counters.timeline.append(
            Moment(round(at_s, 3), counters.bytes, sent_bytes, len(self._fleet.flows()), dict(counters.encodings))
        )
        if len(counters.timeline) >= MOMENTS_MAX:
            del counters.timeline[::2]
            self._every *= 2


def _by_id(infos: Mapping[Flow, TcpInfo]) -> dict[int, TcpInfo]:
    return {id(flow): info for flow, info in infos.items()}


async def _time_ping(flow: Flow) -> None:
    with suppress(FascicleError):  # it broke, and whoever converses by it finds that, too
        await flow.time_ping()
