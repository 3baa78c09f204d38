"""Which peers there are, and which of them a run takes."""

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
NAMES: Final = tuple(peer.name for peer in ALL)


def choose(names: list[str]) -> tuple[list[Peer], list[dict[str, str]]]:
    """Return the peers `names` (none: all) that can run here, and those that cannot, each with the reason.

    Raises:
        SettingsError: an unknown name.
    """
    if unknown := [name for name in names if name not in NAMES]:
        raise SettingsError(f"--peers {','.join(unknown)!r}: there are {', '.join(NAMES)}")
    wanted = [peer for peer in ALL if not names or peer.name in names]
    skipped = [{"peer": peer.name, "reason": reason} for peer in wanted if (reason := peer.missing())]
    return [peer for peer in wanted if not peer.missing()], skipped
