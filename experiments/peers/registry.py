"""Which peers there are, and which of them a run takes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from experiments.peers.base import Peer
from experiments.peers.dcmtk import Orthanc, Storescp
from experiments.peers.erlang import Erlang
from experiments.peers.ftp import Ftp, Lftp
from experiments.peers.ours import Ours
from transfer.errors import SettingsError

ALL: Final[tuple[Peer, ...]] = (
    Ours(),
    Ours("fascicle-raw", "raw"),
    Ftp(),
    Lftp(),
    Storescp(1),
    Storescp(4),
    Erlang(),
    Orthanc(),
)
ON_REQUEST: Final[tuple[Peer, ...]] = (Ours("fascicle-raw-plain", "raw", plain=True),)
NAMES: Final = tuple(peer.name for peer in (*ALL, *ON_REQUEST))


def choose(names: list[str]) -> tuple[list[Peer], list[dict[str, str]]]:
    """Return the peers `names` (none: all) that can run here, and those that cannot, each with the reason.

    Raises:
        SettingsError: an unknown name.
    """
    if unknown := [name for name in names if name not in NAMES]:
        raise SettingsError(f"--peers {','.join(unknown)!r}: there are {', '.join(NAMES)}")
    wanted = [peer for peer in (*ALL, *ON_REQUEST) if peer.name in names] or ALL
    skipped = [{"peer": peer.name, "reason": reason} for peer in wanted if (reason := peer.missing())]
    return [peer for peer in wanted if not peer.missing()], skipped


def with_flows(peers: Sequence[Peer], counts: Sequence[int]) -> list[Peer]:
    """Return `peers`, ours once for each number of flows (0: automatic) and named by it, as `fascicle-raw-f4`."""
    found: list[Peer] = []
    for peer in peers:
        if isinstance(peer, Ours):
            found += [replace(peer, name=f"{peer.name}-f{count}", flows=count) if count else peer for count in counts]
        else:
            found.append(peer)
    return found
