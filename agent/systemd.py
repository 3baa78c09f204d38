"""Tells systemd how the service does: sd_notify(3) in a few lines, without a library.

Refuses to do: anything when NOTIFY_SOCKET is not set.
"""

import os
import socket
from collections.abc import Mapping

from transfer.log import get_logger

log = get_logger()


def notify(state: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send `state`, such as `READY=1`; a service manager that does not listen is logged and no error."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), address)
    except OSError as error:
        log.warning("notify_failed", error=str(error))
