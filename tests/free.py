"""Ports for servers of tests, by number: none that the kernel may lend to somebody's outgoing connection meanwhile."""

from typing import Final

from fascicle.ports import Ports

HERE: Final = Ports("127.0.0.1")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has; no other test run is given it while this one lives."""
    return HERE.keep_or_choose(None)
