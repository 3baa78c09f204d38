"""The cluster's lock, on every host that answers, by the rules of `xen.lease`: a network that is never started.

libvirt refuses a second network of one name: that is the test and set. Its metadata name the owner and hold the beat; a
network that is defined again with its own uuid is replaced in one step. Hosts are taken in one order, so that two runs
that have any host in common exclude each other, and none waits for the other in a circle. Refuses to do: waiting.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from transfer import log
from transfer.errors import BusyError, FascicleError, NotStoredError, UnreachableError
from xen import lease
from xen.errors import PoolError
from xen.libvirt.definitions import parse
from xen.libvirt.errors import named
from xen.libvirt.hosts import HostLink

logger = log.get_logger()
NAMESPACE: Final = "urn:fascicle:lock:1"
LOCK: Final = f"{{{NAMESPACE}}}lock"
LOOK_EVERY_S: Final = 0.5
PREFIX: Final = "fascicle-lock-"


class Rules(msgspec.Struct, frozen=True):
    """How long another owner is waited for, and when one is taken for dead."""

    wait_s: float
    lease_s: float
    has_ended: Callable[[str, str], bool]


class HostLock:
    """The lock on one host."""

    def __init__(self, link: HostLink, prefix: str, generation: int, owner: str) -> None:
        self._link, self._prefix, self._generation, self._owner = link, prefix, generation, owner
        self._beat = 0
        self._beat_s = 0.0

    def check(self) -> None:
        """Return if the lock is still ours; says so on the host, so that nobody takes us for dead.

        Raises:
            BusyError: another run has overtaken this one. UnreachableError: the host does not answer.
        """
        if time.monotonic() - self._beat_s < lease.BEAT_S:
            return
        now = lease.held(self._prefix, _entries(self._link, self._prefix))
        if now is None or (now.generation, now.owner) != (self._generation, self._owner):
            whose = now.owner if now is not None else "nobody"
            raise BusyError(f"the lock on {self._link.host_id} was lost to {whose}; this run does nothing more")
        self.beat()

    def beat(self) -> None:
        """Write the next beat."""
        self._beat += 1
        _define(self._link, lease.key_of(self._prefix, self._generation), self._owner, str(self._beat), again=True)
        self._beat_s = time.monotonic()

    def clear(self) -> None:
        """Remove what earlier owners left."""
        for key in lease.below(self._prefix, _entries(self._link, self._prefix), self._generation):
            _remove(self._link, key)

    def release(self) -> None:
        """Give the lock back. One that cannot be given back is overtaken later."""
        try:
            _remove(self._link, lease.key_of(self._prefix, self._generation))
        except FascicleError as error:
            logger.warning("pool_lock_not_released", host=self._link.host_id, reason=error.message)


class HostsLock:
    """The lock on all hosts that answered when it was taken. Held as long as one of them still confirms it."""

    def __init__(self, held: Sequence[HostLock]) -> None:
        self._held = held
        self._mutex = threading.Lock()

    def check(self) -> None:
        """See `xen.backend.Lock`."""
        with self._mutex:
            silent: list[UnreachableError] = []
            for each in self._held:
                try:
                    each.check()
                except UnreachableError as error:
                    silent.append(error)
            if len(silent) == len(self._held):
                raise silent[0]


@contextmanager
def hold_lock(
    links: Sequence[HostLink],
    cluster: str,
    owner: str,
    wait_s: float,
    *,
    lease_s: float = lease.LEASE_S,
    has_ended: Callable[[str, str], bool] = lease.has_ended,
) -> Iterator[HostsLock]:
    """Hold the cluster's lock on every host that answers.

    Raises:
        BusyError: somebody else has it, still after `wait_s`. UnreachableError: no host answers.
    """
    held: list[HostLock] = []
    silent: list[UnreachableError] = []
    with ExitStack() as stack:
        for link in sorted(links, key=lambda each: each.host_id):
            try:
                lock = _take_on(link, f"{PREFIX}{cluster}", owner, Rules(wait_s, lease_s, has_ended))
            except UnreachableError as error:
                silent.append(error)
                continue
            stack.callback(lock.release)
            held.append(lock)
        if not held:
            raise silent[0]
        yield HostsLock(held)


def is_lock(network: str) -> bool:
    """Tell whether a network is a lock of some cluster."""
    return network.startswith(PREFIX)


def _take_on(link: HostLink, prefix: str, owner: str, rules: Rules) -> HostLock:
    deadline_s = time.monotonic() + rules.wait_s
    seen: lease.Held | None = None
    since_s = time.monotonic()
    while True:
        now = lease.held(prefix, _entries(link, prefix))
        if now != seen:
            seen, since_s = now, time.monotonic()
        if now is None or rules.has_ended(now.owner, owner) or time.monotonic() - since_s > rules.lease_s:
            lock = _try(link, prefix, now, owner)
            if lock is not None:
                return lock
        elif time.monotonic() > deadline_s:
            raise BusyError(
                f"another run is at work on {link.host_id}: {now.owner}; wait for it, or say `watch.lock_wait_s`"
            )
        time.sleep(LOOK_EVERY_S)


def _try(link: HostLink, prefix: str, before: lease.Held | None, owner: str) -> HostLock | None:
    """Try for the next generation; None if somebody was faster, or the former owner was not the one that was judged."""
    generation = before.generation + 1 if before is not None else 1
    if not _define(link, lease.key_of(prefix, generation), owner, "0", again=False):
        return None
    lock = HostLock(link, prefix, generation, owner)
    entries = _entries(link, prefix)
    now = lease.held(prefix, entries)
    changed = before is not None and entries.get(lease.key_of(prefix, before.generation)) not in (before.owner, None)
    if changed or now is None or now.generation != generation:
        lock.release()
        return None
    if before is not None:
        logger.warning("pool_lock_overtaken", host=link.host_id, owner=before.owner)
    lock.beat()
    lock.clear()
    return lock


def _entries(link: HostLink, prefix: str) -> dict[str, str]:
    """Return the locks on a host as `xen.lease` reads them: owners by key, and beats."""
    with named(f"listing networks of {link.host_id}"):
        networks = [each for each in link.connection.listAllNetworks() if each.name().startswith(f"{prefix}.")]
    found: dict[str, str] = {}
    for network in networks:
        try:
            with named("reading a lock"):
                lock = parse(network.XMLDesc()).find(f"metadata/{LOCK}")
        except NotStoredError:
            continue
        if lock is not None:
            found[network.name()] = lock.get("owner", "")
            found[f"{network.name()}.beat"] = lock.get("beat", "")
    return found


def _define(link: HostLink, name: str, owner: str, beat: str, *, again: bool) -> bool:
    """Define a lock's network; False if one of that name is there. `again`: replace the one that is there."""
    network = ET.Element("network")
    ET.SubElement(network, "name").text = name
    if again:
        with named(f"reading the lock on {link.host_id}"):
            ET.SubElement(network, "uuid").text = link.connection.networkLookupByName(name).UUIDString()
    metadata = ET.SubElement(network, "metadata")
    ET.SubElement(metadata, LOCK, {"owner": owner, "beat": beat})
    ET.SubElement(network, "forward", {"mode": "bridge"})
    ET.SubElement(network, "bridge", {"name": "fascicle-lock"})  # which nobody has: it cannot be started by mistake
    try:
        with named(f"writing the lock on {link.host_id}"):
            link.connection.networkDefineXML(ET.tostring(network, encoding="unicode"))
    except PoolError as error:
        if again or not _exists(link.connection, name):
            raise
        logger.debug("pool_lock_taken", host=link.host_id, reason=error.message)
        return False
    return True


def _exists(connection: Any, name: str) -> bool:
    try:
        connection.networkLookupByName(name)
    except libvirt.libvirtError:
        return False
    return True


def _remove(link: HostLink, name: str) -> None:
    with suppress(NotStoredError), named(f"removing the lock on {link.host_id}"):  # gone already
        link.connection.networkLookupByName(name).undefine()
