"""What the kernel knows of a TCP connection (TCP_INFO), read and parsed; None where the system has it not.

The layout is `struct tcp_info` of include/uapi/linux/tcp.h, which only grows: 216 bytes up to `tcpi_bytes_retrans`,
there since Linux 4.19; a shorter answer counts as none. Refuses to do: judging (`transfer.control.sampling`, `bounds`).
"""

import contextlib
import struct
import sys
from dataclasses import dataclass
from typing import Final, Protocol

IPPROTO_TCP: Final = 6
TCP_INFO: Final = 11
LAYOUT: Final = struct.Struct("=8B24I4Q6I4Q2I2Q")
# Indices of the fields used, as the structure has them
MSS, RTT, CWND, TOTAL_RETRANS = 10, 23, 26, 31
BYTES_ACKED, NOTSENT, MIN_RTT, DELIVERY_RATE = 34, 38, 39, 42
BUSY, RWND_LIMITED, SNDBUF_LIMITED, BYTES_SENT, BYTES_RETRANS = 43, 44, 45, 48, 49


class Socket(Protocol):
    """The one method of a socket, plain or trio's, that is needed."""

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes:
        """Return an option's bytes."""


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """Totals since the connection was made, and the present round trip, window and backlog.

    `busy_s`: something was unacknowledged. Of that, `rwnd_limited_s`: the peer's window was full; `sndbuf_limited_s`:
    our send buffer was. `notsent_bytes`: in the kernel and not sent once.
    """

    mss_bytes: int
    rtt_s: float
    min_rtt_s: float
    window_packets: int
    retransmits: int
    acked_bytes: int
    sent_bytes: int
    resent_bytes: int
    notsent_bytes: int
    delivery_bytes_s: int
    busy_s: float
    rwnd_limited_s: float
    sndbuf_limited_s: float


def read(socket: Socket) -> TcpInfo | None:
    """Ask the kernel; None on other systems, on old kernels, and for a socket that is closed or no TCP."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):  # closed, or no TCP: none, as promised
        return parse(socket.getsockopt(IPPROTO_TCP, TCP_INFO, LAYOUT.size))
    return None


def parse(raw: bytes) -> TcpInfo | None:
    """Parse the structure; None when it is shorter than all that is needed."""
    if len(raw) < LAYOUT.size:
        return None
    found = LAYOUT.unpack_from(raw)
    return TcpInfo(
        mss_bytes=found[MSS],
        rtt_s=found[RTT] / 1e6,
        min_rtt_s=found[MIN_RTT] / 1e6,
        window_packets=found[CWND],
        retransmits=found[TOTAL_RETRANS],
        acked_bytes=found[BYTES_ACKED],
        sent_bytes=found[BYTES_SENT],
        resent_bytes=found[BYTES_RETRANS],
        notsent_bytes=found[NOTSENT],
        delivery_bytes_s=found[DELIVERY_RATE],
        busy_s=found[BUSY] / 1e6,
        rwnd_limited_s=found[RWND_LIMITED] / 1e6,
        sndbuf_limited_s=found[SNDBUF_LIMITED] / 1e6,
    )
