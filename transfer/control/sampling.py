"""From the kernel's totals of all flows, then and now, to one sample for the flow controller. Pure.

Flows come and go between two readings: one that is new counts from its beginning, one that is gone no more. Where the
system has no TCP_INFO, bytes handed to the kernel stand for bytes acknowledged. Refuses to do: reading sockets.
"""

from collections.abc import Mapping
from typing import Final

from transfer.control.readings import Sample
from transfer.control.tcp_info import TcpInfo

RTT_GAIN: Final = 1 / 8
ACKED_SEGMENTS: Final = 2  # by one acknowledgement, mostly (RFC 5681)


def sample(
    before: Mapping[int, TcpInfo],
    now: Mapping[int, TcpInfo],
    *,
    at_s: float,
    span_s: float,
    open_flows: int,
    link_ratio: float = 1.0,
    remaining_bytes: int | None = None,
) -> Sample:
    """Compare two readings, by flow, that lie `span_s` (over 0) apart.

    `link_ratio`: the sender's own measure, the share of the flows' time in sends; the kernel's may lower it.
    """
    acked_bytes = sum(_grown(before, now, "acked_bytes"))
    sent_bytes, resent_bytes = sum(_grown(before, now, "sent_bytes")), sum(_grown(before, now, "resent_bytes"))
    return Sample(
        at_s=at_s,
        span_s=span_s,
        goodput_bytes_s=acked_bytes / span_s,
        retransmit_ratio=min(1.0, resent_bytes / sent_bytes) if sent_bytes > 0 else 0.0,
        rtt_s=rtt_s(now),
        link_ratio=min(link_ratio, _busy_ratio(before, now, span_s, open_flows)),
        open_flows=open_flows,
        remaining_bytes=remaining_bytes,
        min_rtt_s=min((info.min_rtt_s for info in now.values() if info.min_rtt_s > 0), default=0.0),
    )


def sample_of_bytes(
    sent_bytes: int,
    *,
    at_s: float,
    span_s: float,
    open_flows: int,
    link_ratio: float,
    remaining_bytes: int | None = None,
) -> Sample:
    """Return the sample of a system without TCP_INFO, from what was sent within `span_s`."""
    return Sample(at_s, span_s, sent_bytes / span_s, 0.0, 0.0, link_ratio, open_flows, remaining_bytes)


def rtt_s(now: Mapping[int, TcpInfo]) -> float:
    """Return the median round trip of the flows, 0.0 without any."""
    found = sorted(info.rtt_s for info in now.values() if info.rtt_s > 0)
    return found[len(found) // 2] if found else 0.0


def fresh_rtt_s(before: Mapping[int, TcpInfo], now: Mapping[int, TcpInfo]) -> float:
    """Return the least round trip of what was acknowledged between two readings; 0.0 where nothing was.

    The kernel tells a mean, of which each acknowledgement moves an eighth (RFC 6298), however long ago the last one
    came; what moved it so far is told from how many there were.
    """
    return min(
        (_moved_to(before[flow], info) for flow, info in now.items() if _is_fresh(before, flow, info)), default=0.0
    )


def _is_fresh(before: Mapping[int, TcpInfo], flow: int, now: TcpInfo) -> bool:
    return flow in before and now.acked_bytes > before[flow].acked_bytes and now.rtt_s > 0


def _moved_to(before: TcpInfo, now: TcpInfo) -> float:
    acks = max(1.0, (now.acked_bytes - before.acked_bytes) / (ACKED_SEGMENTS * max(1, now.mss_bytes)))
    moved_ratio: float = 1 - (1 - RTT_GAIN) ** acks
    return max(now.min_rtt_s, before.rtt_s + (now.rtt_s - before.rtt_s) / moved_ratio)


def has_backlog(now: Mapping[int, TcpInfo]) -> bool:
    """Tell whether any flow has bytes that its link did not take yet: then the link is what binds."""
    return any(info.notsent_bytes > 0 for info in now.values())


def _grown(before: Mapping[int, TcpInfo], now: Mapping[int, TcpInfo], what: str) -> list[float]:
    return [getattr(info, what) - (getattr(before[flow], what) if flow in before else 0) for flow, info in now.items()]


def _busy_ratio(before: Mapping[int, TcpInfo], now: Mapping[int, TcpInfo], span_s: float, open_flows: int) -> float:
    """Return the share of the flows' time with bytes under way that the peer's window did not hold up."""
    busy_s = sum(_grown(before, now, "busy_s")) - sum(_grown(before, now, "rwnd_limited_s"))
    return min(1.0, max(0.0, busy_s / (span_s * max(1, open_flows))))
