"""A simulated link: N TCP flows, drop-tail queue, random loss, cross traffic; a fluid in steps of a few milliseconds.

Each flow has a window (CUBIC: RFC 9438, with its Reno-friendly region and time-outs; BBR: largest delivery rate of ten
round trips, gains in turn, at most two bandwidth-delay products in flight). Rates follow from window / round trip, the
round trip from the queue. Seeded, no clock. It shows what a controller does, not what a kernel does.
"""

import random
from dataclasses import dataclass, field, replace

from transfer.control import flows as control
from transfer.control.readings import Limits, Sample

MSS = 1448
CUBIC_C, CUBIC_BETA = 0.4, 0.7
HANDSHAKE_ROUND_TRIPS = 4  # TCP, TLS, greeting


@dataclass(frozen=True)
class Path:
    """A link: bytes a second, round trip without queue, random loss, bytes in the queue before it."""

    rate: float
    rtt_s: float
    loss: float = 0.0
    queue_bytes: float = 0.0

    @property
    def queue(self) -> float:
        return self.queue_bytes or max(self.rate * max(self.rtt_s, 0.02), 64 * MSS)


LAN = Path(125e6, 0.0004)
TANET = Path(12.5e6, 0.010)
ADSL = Path(0.25e6, 0.040, queue_bytes=64 << 10)
WAN = Path(12.5e6, 0.080, loss=0.01)
PROFILES = {"lan": LAN, "tanet": TANET, "adsl": ADSL, "wan": WAN}


@dataclass
class Tcp:
    """One flow; `opens_s`: when it may send."""

    opens_s: float
    kind: str
    window: float = 10.0  # packets
    threshold: float = float("inf")
    w_max: float = 0.0
    epoch_s: float = 0.0
    quiet_until_s: float = 0.0  # one loss event a round trip; or a time-out
    stalled_until_s: float = 0.0
    active: bool = True
    sent: float = 0.0
    bandwidths: list[tuple[float, float]] = field(default_factory=list)
    full_rounds: int = 0
    last_full: float = 0.0
    round_ends_s: float = 0.0
    round_packets: float = 0.0

    def rate(self, rtt_s: float, base_rtt_s: float, now_s: float) -> float:
        """Packets a second that it offers."""
        if not self.active or now_s < max(self.opens_s, self.stalled_until_s):
            return 0.0
        if self.kind == "cubic" or not self.bandwidths:
            return self.window / rtt_s
        bandwidth = max(value for _, value in self.bandwidths)
        if self.full_rounds < 3:
            return max(2.0 * bandwidth, self.window / rtt_s)
        gain = (1.25, 0.75, 1, 1, 1, 1, 1, 1)[int(now_s / base_rtt_s) % 8]
        return min(gain * bandwidth, 2 * bandwidth * base_rtt_s / rtt_s)

    def on_delivered(self, packets: float, rtt_s: float, now_s: float) -> None:
        if self.kind == "bbr":
            self._on_delivered_bbr(packets, rtt_s, now_s)
            return
        if self.window < self.threshold:
            self.window += packets
            return
        since_s = now_s - self.epoch_s
        k_s = (self.w_max * (1 - CUBIC_BETA) / CUBIC_C) ** (1 / 3)
        cubic = CUBIC_C * (since_s - k_s) ** 3 + self.w_max
        friendly = self.w_max * CUBIC_BETA + 3 * (1 - CUBIC_BETA) / (1 + CUBIC_BETA) * since_s / rtt_s
        self.window = min(max(self.window, cubic, friendly), self.window * (1 + 0.5 * packets / self.window))

    def _on_delivered_bbr(self, packets: float, rtt_s: float, now_s: float) -> None:
        self.round_packets += packets
        if now_s < self.round_ends_s:
            return
        if self.round_ends_s:
            bandwidth = self.round_packets / rtt_s
            self.bandwidths = [*self.bandwidths[-9:], (now_s, bandwidth)]
            if bandwidth < 1.25 * self.last_full:
                self.full_rounds += 1
            else:
                self.last_full, self.full_rounds = bandwidth, 0
        self.round_ends_s, self.round_packets = now_s + rtt_s, 0.0

    def on_loss(self, rtt_s: float, now_s: float) -> None:
        if self.kind == "bbr" or now_s < self.quiet_until_s:
            return
        self.quiet_until_s = now_s + rtt_s
        if self.window < 4:
            self.stalled_until_s = now_s + max(0.2, 2 * rtt_s)
        self.w_max = self.window * ((1 + CUBIC_BETA) / 2 if self.window < self.w_max else 1)
        self.window = self.threshold = max(2.0, self.window * CUBIC_BETA)
        self.epoch_s = now_s


class Link:
    """Flows of ours and of others on one path."""

    def __init__(self, path: Path, *, seed: int = 1, kind: str = "cubic", cross: int = 0) -> None:
        self.path, self.kind = path, kind
        self.now_s = 0.0
        self.queued = 0.0  # bytes
        self._random = random.Random(seed)
        self.flows: list[Tcp] = []
        self.others = [Tcp(0.0, "cubic") for _ in range(cross)]
        self.delivered = self.resent = self.others_delivered = 0.0  # bytes
        self.cap = float("inf")  # bytes a second of all our flows

    @property
    def rtt_s(self) -> float:
        return self.path.rtt_s + self.queued / self.path.rate

    @property
    def open_flows(self) -> int:
        return sum(flow.active and flow.opens_s <= self.now_s for flow in self.flows)

    def set_flows(self, count: int) -> None:
        """Let `count` flows send: those that paused begin again at once, new ones after their handshake."""
        while len(self.flows) < count:
            self.flows.append(Tcp(self.now_s + HANDSHAKE_ROUND_TRIPS * self.rtt_s, self.kind))
        for index, flow in enumerate(self.flows):
            flow.active = index < count

    def run(self, seconds: float) -> None:
        steps = max(1, round(seconds / max(min(self.path.rtt_s / 4, 0.01), 0.002)))
        for _ in range(steps):
            self._step(seconds / steps)

    def _step(self, dt_s: float) -> None:
        path, rtt_s = self.path, self.rtt_s
        ours = [flow.rate(rtt_s, path.rtt_s, self.now_s) * MSS for flow in self.flows]
        if sum(ours) > self.cap:
            ours = [rate * self.cap / sum(ours) for rate in ours]
        theirs = [flow.rate(rtt_s, path.rtt_s, self.now_s) * MSS for flow in self.others]
        offered = (sum(ours) + sum(theirs)) * dt_s
        self.now_s += dt_s
        if not offered:
            self.queued = max(0.0, self.queued - path.rate * dt_s)
            return
        queued = self.queued + offered - path.rate * dt_s
        dropped = min(max(0.0, queued - path.queue) / offered, 0.9)
        served = min(1.0, (path.rate * dt_s) / offered) if self.queued <= 0 or queued > path.queue else 1.0
        self.queued = min(max(queued, 0.0), path.queue)
        lost = 1 - (1 - path.loss) * (1 - dropped)
        for flow, rate in zip([*self.flows, *self.others], [*ours, *theirs], strict=True):
            if rate:
                self._serve(flow, rate * dt_s, lost, min(served, 1 - lost), rtt_s)

    def _serve(self, flow: Tcp, offered: float, lost: float, served: float, rtt_s: float) -> None:
        delivered = offered * served
        if self._random.random() < 1 - (1 - lost) ** (offered / MSS):
            flow.on_loss(rtt_s, self.now_s)
        flow.on_delivered(delivered / MSS, rtt_s, self.now_s)
        if flow in self.others:
            self.others_delivered += delivered
        else:
            self.delivered += delivered
            self.resent += offered * lost


@dataclass
class Trace:
    """What a controlled transfer did: bytes by second, and the numbers of flows with their times."""

    seconds: float = 0.0
    delivered: float = 0.0
    changes: list[tuple[float, int]] = field(default_factory=list)
    state: control.State | None = None

    @property
    def goodput(self) -> float:
        return self.delivered / self.seconds


def fixed(link: Link, count: int, *, seconds: float, skip_s: float = 0.0) -> float:
    """Return the goodput of `count` flows from `skip_s` to `seconds`."""
    link.set_flows(count)
    link.run(max(skip_s, 1e-3))
    before = link.delivered
    link.run(seconds - skip_s)
    return (link.delivered - before) / (seconds - skip_s)


def controlled(
    link: Link,
    *,
    seconds: float = 60.0,
    total_bytes: float = float("inf"),
    limits: Limits | None = None,
    state: control.State | None = None,
    link_ratio: float = 1.0,
    sample_s: float = 0.1,
) -> Trace:
    """Let the controller choose, until `seconds` or `total_bytes`."""
    limits = limits or Limits(loss_based=link.kind == "cubic")
    state = state or control.begin(limits)
    start_s, start = link.now_s, link.delivered
    trace = Trace(changes=[(0.0, state.flows)])
    while link.now_s - start_s < seconds and link.delivered - start < total_bytes:
        link.set_flows(state.flows)
        before, before_resent = link.delivered, link.resent
        link.run(sample_s)
        sent = link.delivered - before
        remaining = None if total_bytes == float("inf") else int(max(0, total_bytes - (link.delivered - start)))
        sample = Sample(
            at_s=link.now_s,
            span_s=sample_s,
            goodput_bytes_s=sent / sample_s,
            retransmit_ratio=(link.resent - before_resent) / max(sent, 1.0),
            rtt_s=link.rtt_s,
            link_ratio=link_ratio,
            open_flows=link.open_flows,
            remaining_bytes=remaining,
        )
        state = control.advance(state, sample, limits)
        if state.flows != trace.changes[-1][1]:
            trace.changes.append((link.now_s - start_s, state.flows))
    trace.seconds, trace.delivered, trace.state = link.now_s - start_s, link.delivered - start, state
    return trace


def changed(path: Path, **how: float) -> Path:
    return replace(path, **how)
