"""The lobby of a listener: connections that have not shown who they are, and who of them gives way to a newcomer.

A listener that is full of strangers and stops accepting has been taken from everybody by whoever opens connections and
says nothing. So it accepts always, and keeps strangers in places of their own, apart from those who are known
(`transfer.places`). No address has more than `address_max` places: the oldest of the same address gives way. Where all
places are taken, the oldest of the address with the most does. A handshake takes a moment, so whoever means it is
through before the turn comes to it. Pure. Refuses to do: closing anything, clocks.
"""

import ipaddress
from typing import Final, Generic, TypeVar

G = TypeVar("G")
NETWORK_BITS_V6: Final = 64  # what one site has of IPv6; any machine in it can take any address of it


def network_of(host: str) -> str:
    """Return what counts as one address: itself, or the network of 64 bits of IPv6."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, NETWORK_BITS_V6), strict=False))


class Lobby(Generic[G]):
    """Strangers by address, each address's in the order in which they came."""

    def __init__(self, places_max: int, address_max: int) -> None:
        self._places_max, self._address_max = places_max, address_max
        self._guests: dict[str, dict[G, None]] = {}  # no address without guests
        self._address_of: dict[G, str] = {}

    def __len__(self) -> int:
        return len(self._address_of)

    def enter(self, guest: G, host: str) -> G | None:
        """Take in a newcomer; return who gave way to it, and is in here no more."""
        address = network_of(host)
        leaving = self._who_gives_way(address)
        if leaving is not None:
            self.leave(leaving)
        self._guests.setdefault(address, {})[guest] = None
        self._address_of[guest] = address
        return leaving

    def leave(self, guest: G) -> None:
        """Let one go, who may have gone already."""
        address = self._address_of.pop(guest, None)
        if address is None:
            return
        del self._guests[address][guest]
        if not self._guests[address]:
            del self._guests[address]

    def _who_gives_way(self, address: str) -> G | None:
        same = self._guests.get(address, {})
        if len(same) >= self._address_max:
            return next(iter(same))
        if len(self) >= self._places_max:
            return next(iter(self._guests[max(self._guests, key=lambda each: len(self._guests[each]))]))
        return None
