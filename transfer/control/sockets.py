"""What a sending socket is set to: congestion control, and how little unsent data the kernel may hold.

`auto` is BBR where this system allows it to be chosen, else the system's default. Bytes in the kernel cannot be
overtaken, so a socket takes no more than about a tenth of a second of them: an urgent transfer, a cap and a pause
bite at once, also at 2 Mb/s. Kernel buffers stay autotuned. Refuses to do: choosing anything by measurement.
"""

import contextlib
from pathlib import Path
from typing import Final

import trio

from transfer.errors import SettingsError

AUTO: Final = "auto"
AVAILABLE: Final = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
DEFAULT: Final = Path("/proc/sys/net/ipv4/tcp_congestion_control")
UNSENT_BYTES: Final = 128 << 10  # until a flow's rate is known
UNSENT_BYTES_MIN: Final = 16 << 10
UNSENT_BYTES_MAX: Final = 512 << 10  # on a fast link each wake-up costs more than the bytes it sends
UNSENT_S: Final = 0.1
LOSS_BASED_NOT: Final = frozenset({"bbr", "bbr2", "bbr3"})
NAME_BYTES_MAX: Final = 16  # TCP_CA_NAME_MAX


def available() -> frozenset[str]:
    """Return the congestion controls that this system has loaded; empty where it does not say."""
    with contextlib.suppress(OSError):  # not Linux
        return frozenset(AVAILABLE.read_text().split())
    return frozenset()


def prepare(socket: trio.socket.SocketType, congestion: str | None) -> None:
    """Set up a socket that is connected; `congestion` None leaves the system's default.

    Raises:
        SettingsError: a congestion control by name that the kernel has not, or that this user may not choose.
    """
    limit_unsent(socket, UNSENT_BYTES)
    if congestion == AUTO:
        if "bbr" in available():
            with contextlib.suppress(OSError):  # not allowed to this user: the default is right too
                _set(socket, "bbr")
    elif congestion is not None:
        try:
            _set(socket, congestion)
        except OSError as error:
            raise SettingsError(f"this kernel has no congestion control `{congestion}`: {error.strerror}") from error


def congestion_of(socket: trio.socket.SocketType) -> str:
    """Return the name of the congestion control in use, "" where the system does not say."""
    if not hasattr(trio.socket, "TCP_CONGESTION"):
        return ""
    with contextlib.suppress(OSError):  # closed, or not TCP: not known
        raw: bytes = socket.getsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_CONGESTION, NAME_BYTES_MAX)
        return raw.rstrip(b"\0").decode("ascii", "replace")
    return ""


def effective(congestion: str | None) -> str:
    """Return the name of what `prepare` sets a socket to, as far as the system tells; "" where it does not."""
    if congestion == AUTO and "bbr" in available():
        return "bbr"
    if congestion not in {AUTO, None}:
        return congestion or ""
    with contextlib.suppress(OSError):  # not Linux
        return DEFAULT.read_text().strip()
    return ""


def is_loss_based(congestion: str) -> bool:
    """Tell whether each loss halves, or nearly so, what a flow may send; also when it is not known."""
    return congestion not in LOSS_BASED_NOT


def unsent_bytes(flow_bytes_s: float) -> int:
    """Return how much unsent data a flow of such a rate shall hold in the kernel."""
    return int(min(max(flow_bytes_s * UNSENT_S, UNSENT_BYTES_MIN), UNSENT_BYTES_MAX))


def limit_unsent(socket: trio.socket.SocketType, size_bytes: int) -> None:
    """Let the kernel take bytes only while fewer than `size_bytes` wait unsent; nothing where it cannot."""
    option = getattr(trio.socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        with contextlib.suppress(OSError):  # a hint, no more
            socket.setsockopt(trio.socket.IPPROTO_TCP, option, size_bytes)


def _set(socket: trio.socket.SocketType, congestion: str) -> None:
    socket.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_CONGESTION, congestion.encode())
