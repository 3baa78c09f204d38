"""Keys, epochs and revocations reach a node that runs, hold after it was restarted, and end what was opened before."""

import time
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from nodes import admission
from nodes.trust import Trusted
from tests.nodes.kit import Running, Site, flow_to, open_client
from transfer import pki, tickets, tls
from transfer.errors import FascicleError, SettingsError, UnauthorisedError
from transfer.membership import Trust
from transfer.protocol.messages import Ping, Pong
from transfer.tls import Peer

OLD, NEW, OLDER = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2, 3))


def in_hex(*keys: Ed25519PrivateKey) -> list[str]:
    return [key.public_key().public_bytes_raw().hex() for key in keys]


def trust(*keys: Ed25519PrivateKey, epoch: int = 0, revoked: dict[str, int] | None = None) -> Trust:
    return Trust(keys=in_hex(*keys), epoch=epoch, revoked=revoked or {})


def peer_of(site: Site, name: str) -> Peer:
    return tls.peer_from_der(pki.load_certificate(site.folder / name / "certificate.pem").public_bytes(Encoding.DER))


def signed(site: Site, key: Ed25519PrivateKey, **changes: object) -> bytes:
    ticket = tickets.verify(site.ticket("node-1", "node-2"), site.public_key("gateway-1"))
    return tickets.sign(msgspec.structs.replace(ticket, **changes), key)


def test_every_single_bit_of_a_ticket_counts(site: Site) -> None:
    trusted = Trusted(trust(NEW, OLD))
    peer = peer_of(site, "ws-1")
    good = signed(site, OLD)
    assert admission.admit(good, peer, node_id="node-1", trusted=trusted).holder == "ws-1"
    refused = 0
    for bit in range(len(good) * 8):
        altered = bytearray(good)
        altered[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(UnauthorisedError):
            admission.admit(bytes(altered), peer, node_id="node-1", trusted=trusted)
        refused += 1
    assert refused == len(good) * 8 > 2000


def test_keys_overlap_and_the_one_before_both_is_refused(site: Site) -> None:
    trusted, peer = Trusted(trust(OLD)), peer_of(site, "ws-1")
    assert trusted.take(trust(NEW, OLD))
    for key in (OLD, NEW):
        assert admission.admit(signed(site, key), peer, node_id="node-1", trusted=trusted).transfer_id == "t-1"
    with pytest.raises(UnauthorisedError, match="not this gateway's"):
        admission.admit(signed(site, OLDER), peer, node_id="node-1", trusted=trusted)
    assert trusted.take(trust(NEW))
    with pytest.raises(UnauthorisedError, match="not this gateway's"):
        admission.admit(signed(site, OLD), peer, node_id="node-1", trusted=trusted)


@pytest.mark.parametrize(("life_s", "good"), [(119, True), (120 + 299, True), (120 + 310, False), (86_400, False)])
def test_a_ticket_that_lasts_too_long_is_refused_whoever_signed_it(site: Site, life_s: int, good: bool) -> None:
    long = signed(site, OLD, expires_at_s=time.time() + life_s)
    trusted, peer = Trusted(trust(OLD)), peer_of(site, "ws-1")
    if good:
        assert admission.admit(long, peer, node_id="node-1", trusted=trusted)
    else:
        with pytest.raises(UnauthorisedError, match="lasts longer"):
            admission.admit(long, peer, node_id="node-1", trusted=trusted)


def test_a_revoked_certificate_is_refused_and_one_made_later_is_not(site: Site) -> None:
    peer = peer_of(site, "ws-1")
    now = Trusted(trust(OLD, revoked={"ws-1": peer.not_before_s}))
    with pytest.raises(UnauthorisedError, match="ws-1 was revoked"):
        admission.admit(signed(site, OLD), peer, node_id="node-1", trusted=now)
    later = Trusted(trust(OLD, revoked={"ws-1": peer.not_before_s - 1, "ws-2": 1 << 40}))
    assert admission.admit(signed(site, OLD), peer, node_id="node-1", trusted=later)


def test_a_revoked_node_makes_no_replicas(site: Site) -> None:
    node = peer_of(site, "node-2")
    ticket = signed(site, OLD)
    assert admission.admit(ticket, node, node_id="node-1", trusted=Trusted(trust(OLD)))
    with pytest.raises(UnauthorisedError, match="node-2 was revoked"):
        revoked = Trusted(trust(OLD, revoked={"node-2": node.not_before_s}))
        admission.admit(ticket, node, node_id="node-1", trusted=revoked)


def test_trust_outlives_the_process(tmp_path: Path) -> None:
    path, (configured,) = tmp_path / "trust.json", in_hex(OLDER)
    first = Trusted.load(path, configured)
    assert [key.public_bytes_raw().hex() for key in first.keys] == [configured]
    assert first.take(trust(NEW, OLD, epoch=4, revoked={"ws-1": 7}))
    assert not first.take(trust(NEW, OLD, epoch=4, revoked={"ws-1": 7}))
    second = Trusted.load(path, configured)
    assert second.trust == trust(NEW, OLD, epoch=4, revoked={"ws-1": 7})
    assert Trusted.load(path, in_hex(NEW)[0]).trust == trust(NEW)  # an operator gave another gateway's key


def test_an_epoch_never_goes_back(tmp_path: Path) -> None:
    trusted = Trusted.load(tmp_path / "trust.json", in_hex(OLD)[0])
    trusted.take(trust(NEW, epoch=2))
    with pytest.raises(UnauthorisedError, match="epoch 1, and 2 was here"):
        trusted.take(trust(OLD, epoch=1))
    assert trusted.trust == Trusted.load(tmp_path / "trust.json", in_hex(OLD)[0]).trust == trust(NEW, epoch=2)


def test_a_damaged_file_does_not_let_anybody_in(tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_text('{"configured": 1}')
    with pytest.raises(SettingsError, match="cannot be read"):
        Trusted.load(tmp_path / "trust.json", in_hex(OLD)[0])


async def assert_ended(site: Site, node: Running, change: Trust, why: str, *, spared: str) -> None:
    """A flow of ws-1 is ended by `change`; with `spared` another one is opened before, which is not."""
    others = site.ticket(node, holder=spared, client_fingerprint=site.fingerprint(spared), epoch=9)
    async with (
        open_client(node, others, site.client(spared)) as other,
        open_client(node, site.ticket(node), site.client("ws-1")) as client,
    ):
        assert await client.ask(Ping(1)) == Pong(1)
        assert node.node.trusted.take(change)
        node.node.end_revoked()
        with pytest.raises(FascicleError) as ended:
            await client.next()
        assert (ended.value.code, why in ended.value.message) == ("unauthorised", True), ended.value.message
        assert await other.ask(Ping(2)) == Pong(2)
    with pytest.raises(UnauthorisedError, match=why):
        async with flow_to(node, site.ticket(node), site.client("ws-1")):
            pass


async def test_a_new_epoch_ends_flows_that_are_open(site: Site, secure_node: Running) -> None:
    change = msgspec.structs.replace(secure_node.node.trusted.trust, epoch=1)
    await assert_ended(site, secure_node, change, "ticket was revoked", spared="ws-2")


async def test_revocation_ends_the_flows_of_that_party_and_no_other(site: Site, secure_node: Running) -> None:
    revoked = {"ws-1": peer_of(site, "ws-1").not_before_s}
    change = msgspec.structs.replace(secure_node.node.trusted.trust, revoked=revoked)
    await assert_ended(site, secure_node, change, "ws-1 was revoked", spared="ws-2")
