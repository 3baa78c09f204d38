"""Addresses written as `host:port`, IPv6 hosts in brackets."""

import ipaddress
from typing import NamedTuple

from transfer.errors import SettingsError


class Address(NamedTuple):
    """A host (name or literal, without brackets) and a port; port 0 asks the system for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can be meant; a name other than `localhost` is not looked up, and is not."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse(text: str) -> Address:
    """Read `host:port`.

    Raises:
        SettingsError: no port, or one that is no number from 0 to 65535.
    """
    written, _, port = text.rpartition(":")
    host = written[1:-1] if written.startswith("[") and written.endswith("]") else written
    unclear = not host or "[" in host or "]" in host or (":" in host and host == written)
    if unclear or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise SettingsError(f"`{text}` is not an address; write host:port, such as 127.0.0.1:8443")
    return Address(host, int(port))
