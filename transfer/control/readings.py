"""What the flow controller is given and what it keeps: bounds, samples, and averages over samples. Values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the number of flows. `first`: remembered from the path, or by its round trip.

    `loss_based`: the flows' congestion control takes each loss for congestion (CUBIC, Reno; not BBR).
    """

    first: int = 4
    least: int = 2
    most: int = 64
    loss_based: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured since the last sample (suggested: every 0.1 s).

    `goodput_bytes_s`: acknowledged by TCP on all flows. `retransmit_ratio`: bytes retransmitted per byte sent.
    `link_ratio`: share of the flows' time spent waiting for the link, not for source or credit. `open_flows`: that may
    send. `remaining_bytes`: None when not known. `min_rtt_s`: the least round trip of all flows so far, which the first
    handshake knows before a queue stands; 0 when not known.
    """

    at_s: float
    span_s: float
    goodput_bytes_s: float
    retransmit_ratio: float
    rtt_s: float
    link_ratio: float
    open_flows: int
    remaining_bytes: int | None = None
    min_rtt_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Goodput at one number of flows, as an average over `span_s`."""

    flows: int
    span_s: float = 0.0
    sent_bytes: float = 0.0
    resent_bytes: float = 0.0
    rtt_s2: float = 0.0  # the round trip, integrated over `span_s`

    @property
    def goodput_bytes_s(self) -> float:
        """Return the average."""
        return self.sent_bytes / self.span_s if self.span_s else 0.0

    @property
    def retransmit_ratio(self) -> float:
        """Return the share that was retransmitted."""
        return self.resent_bytes / self.sent_bytes if self.sent_bytes else 0.0

    @property
    def rtt_s(self) -> float:
        """Return the average round trip."""
        return self.rtt_s2 / self.span_s if self.span_s else 0.0

    def plus(self, sample: Sample) -> "Reading":
        """Return the reading with one more sample."""
        sent_bytes = sample.goodput_bytes_s * sample.span_s
        return Reading(
            self.flows,
            self.span_s + sample.span_s,
            self.sent_bytes + sent_bytes,
            self.resent_bytes + sent_bytes * sample.retransmit_ratio,
            self.rtt_s2 + sample.rtt_s * sample.span_s,
        )
