"""The libvirt back end at libvirt's own test driver: what cannot be, and what belongs to others."""
# ruff: noqa: E402  (these need libvirt, and are looked for only where it is)

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed (it needs libvirt-dev)")

from tests.xen.libvirt_kit import CLUSTER, MIB, Hosts, failure, open_hosts
from transfer.errors import (
    BusyError,
    ConflictError,
    FascicleError,
    FullError,
    SettingsError,
    UnauthorisedError,
    UnreachableError,
)
from xen import backend as interface
from xen.errors import PoolError
from xen.libvirt import definitions, errors, hosts, lock
from xen.observed import Stage


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOOK_EVERY_S", 0.02)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    with open_hosts(tmp_path, monkeypatch, ["anna", "bert", "carl"]) as opened:
        yield opened


# What cannot be


@pytest.mark.parametrize("key", ["template", "network", "storage"])
async def test_what_the_hosts_do_not_have_is_named_before_anything(site: Hosts, key: str) -> None:
    with pytest.raises(SettingsError, match=rf"the pool has no {key} `nowhere` \(`nodes.{key}`\); there are: "):
        await site.apply(site.file(**{key: "nowhere"}))
    site.assert_exactly(0)


async def test_too_little_memory_is_said_before_anything(site: Hosts) -> None:
    with pytest.raises(FullError, match="GiB of memory on the hosts are missing"):
        await site.apply(site.file(count=60))
    site.assert_exactly(0)


async def test_memory_that_is_gone_meanwhile_is_named_for_each_host(site: Hosts) -> None:
    await site.apply(site.file(count=1))
    with site.backend() as backend:
        backend.shut_down("node-01", 1.0)
        shape = "<memory unit='GiB'>16</memory><vcpu>1</vcpu><os><type>hvm</type></os>"
        big = f"<domain type='test'><name>big</name>{shape}</domain>"
        for host in site.hosts.values():
            host.real.createXML(big)
        with pytest.raises(
            FullError, match=r"no host takes node-01: \w+: .*0 MiB of memory are free, 1120 MiB are needed"
        ):
            backend.choose_host("node-01", [site.machines()[0].host_id])


async def test_a_network_that_one_host_lacks_is_named_with_the_host(site: Hosts) -> None:
    network = site.hosts["carl"].real.networkLookupByName("storage")
    network.destroy()
    network.undefine()
    with pytest.raises(SettingsError, match="the host carl has no network `storage`"):
        await site.apply(site.file(count=3))


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (libvirt.VIR_ERR_AUTH_FAILED, "authentication failed", UnauthorisedError),
        (libvirt.VIR_ERR_ACCESS_DENIED, "access denied", UnauthorisedError),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "cannot extend file: No space left on device", FullError),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "cannot set up guest memory 'pc.ram': Cannot allocate memory", FullError),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "client socket is closed", UnreachableError),
        (libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running", ConflictError),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock", BusyError),
    ],
)
def test_what_libvirt_says_has_a_meaning(code: int, message: str, kind: type[FascicleError]) -> None:
    wrapped = errors.wrap("starting node-01", failure(code, message))
    assert type(wrapped) is kind
    assert message in wrapped.message


def test_an_error_without_a_meaning_of_ours_keeps_its_name() -> None:
    wrapped = errors.wrap("starting node-01", failure(libvirt.VIR_ERR_XML_ERROR, "no kernel"))
    assert isinstance(wrapped, PoolError)
    assert (wrapped.name, wrapped.details) == ("VIR_ERR_XML_ERROR", ("no kernel",))


def test_credentials_that_are_refused_are_not_taken_for_a_dead_host(
    site: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str) -> Any:
        raise failure(libvirt.VIR_ERR_AUTH_FAILED, f"authentication failed: {uri}")

    monkeypatch.setattr(Hosts, "open", lambda self, uri: refuse(uri))
    with site.backend() as backend, pytest.raises(UnauthorisedError, match="VIR_ERR_AUTH_FAILED"):
        backend.observe()


def test_a_host_that_never_answers_is_given_up(site: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    release = threading.Event()
    monkeypatch.setattr(hosts, "OPEN_TIMEOUT_S", 0.1)
    link = hosts.HostLink("qemu+ssh://silent.example.org/system", lambda uri: release.wait(20))
    with pytest.raises(UnreachableError, match="does not answer within 0 s"):
        assert link.connection
    release.set()


def test_two_uris_of_one_host_are_refused() -> None:
    with pytest.raises(SettingsError, match="are one host, kvm-1"):
        hosts.open_links(["qemu+ssh://kvm-1/system", "qemu+tls://kvm-1/system"], lambda uri: None)


# Others' things


async def test_copies_that_somebody_made_are_not_ours(site: Hosts) -> None:
    await site.apply(site.file(count=1))
    definition = definitions.parse(site.domain("node-01").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    definition.find("name").text = "copy"  # type: ignore[union-attr]  # fails if None
    definition.find("uuid").text = "11111111-2222-4333-8444-555555555555"  # type: ignore[union-attr]  # fails if None
    copied = site.hosts["carl"].real.defineXML(definitions.text(definition))
    assert [each.name for each in site.machines()] == ["node-01"]
    with site.backend() as backend, pytest.raises(ConflictError, match="the machine copy does not bear our marks"):
        backend.destroy(copied.UUIDString())


async def test_a_machine_that_was_taken_away_leaves_its_disk_which_is_never_removed(site: Hosts) -> None:
    """Its disk may hold the last replica of something; only its drive, which holds nothing, goes."""
    await site.apply(site.file(count=1))
    (seen,) = site.machines()
    domain = site.domain("node-01")
    domain.destroy()
    domain.undefine()
    site.cloud.known.clear()
    await site.apply(site.file(count=1))
    stem = f"fascicle.{CLUSTER}.node-01.{seen.machine_id[:8]}"
    left = [name for host in site.hosts for name in site.volumes(host) if name.startswith(stem)]
    assert left == [f"{stem}.disk"]


async def test_others_metadata_on_a_machine_are_kept(site: Hosts) -> None:
    await site.apply(site.file(count=1))
    site.domain("node-01").setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "<note/>", "a", "urn:another", 2)
    with site.backend() as backend:
        backend.mark("node-01", Stage.LEAVING)
        backend.mark("node-01", Stage.SERVING)
    assert "urn:another" in site.domain("node-01").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert [each.stage for each in site.machines()] == [Stage.SERVING]


async def test_a_snapshot_is_made_once_and_goes_with_its_machine(site: Hosts) -> None:
    await site.apply(site.file(count=1))
    with site.backend() as backend:
        backend.snapshot("node-01", "before")
        backend.snapshot("node-01", "before")
    assert site.domain("node-01").snapshotListNames() == ["before"]
    await site.apply(site.file(count=0))
    site.assert_exactly(0)


async def test_a_disk_of_one_hosts_own_does_not_move(site: Hosts) -> None:
    await site.apply(site.file(count=1))
    (seen,) = site.machines()
    target = next(name for name in site.hosts if name != seen.host_id)
    with site.backend() as backend:
        with pytest.raises(
            ConflictError, match=f"cannot go to {target}: its disk is on storage of {seen.host_id} alone"
        ):
            backend.move("node-01", target)
        with pytest.raises(FullError, match=f"{target}: its disk is not there"):
            backend.choose_host("node-01", [target])
        backend.move("node-01", seen.host_id)


def test_storage_that_cannot_share_says_what_to_do(site: Hosts) -> None:
    connection = site.hosts["anna"].real
    xml = "<pool type='logical'><name>volumes</name><target><path>/dev/volumes</path></target></pool>"
    connection.storagePoolDefineXML(xml).create()
    with site.backend() as backend:
        wish = interface.Clone(
            name="node-01",
            number=1,
            template_id="node image",
            storage_id="anna/volumes",
            host_id="anna",
            full_copy=False,
            revision="",
        )
        with pytest.raises(SettingsError, match=r"volumes \(logical\) cannot share .* `nodes.full_copy = true`"):
            backend.clone(wish)
        assert [each.stage for each in backend.observe().machines] == [Stage.RAW]


def test_sizes_are_read_in_libvirts_units() -> None:
    xml = "<domain><memory unit='MiB'>512</memory></domain>"
    assert definitions.memory_bytes(definitions.parse(xml)) == 512 * MIB
