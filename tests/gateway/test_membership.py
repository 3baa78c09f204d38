"""Invitation, enrolment, renewal, revocation and keys, at a gateway that runs all the time."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from fascicle.cli import main
from gateway import membership
from gateway import register as register_file
from gateway.liveness import Nodes
from gateway.membership import Membership
from gateway.register import Party, Register
from gateway.signatures import NodeKeys
from gateway.signing import OVERLAP_S, SigningKeys
from tests.gateway.kit import TRANSFERS, Gateway, Identities, Node, get, post, settings
from transfer import credentials, enrolment, heartbeat, keyfiles, pki, tickets, tls
from transfer.api import OpenTransfer
from transfer.durable import write_file_durably
from transfer.errors import ConflictError, UnauthorisedError
from transfer.membership import Enrol, Invite, Revoke, RotateKeys, TellDomain

API = "/api/v1"


@pytest.fixture
def gateway(identities: Identities, tmp_path: Path) -> Iterator[Gateway]:
    running = Gateway(identities, with_authority(identities, tmp_path / "gateway"))
    yield running
    running.stop()


def with_authority(identities: Identities, data: Path) -> Any:
    return settings(identities, data, authority=str(identities.folder / "ca"))


def invite(gateway: Gateway, name: str, role: Any = "workstation", **more: Any) -> str:
    answer = post(gateway.client("admin-1"), f"{API}/invitations", Invite(name=name, role=role, **more))
    return str(answer["secret"])


def enrol(gateway: Gateway, folder: Path, secret: str, status: int = 200, **more: Any) -> Any:
    """Enrol with a key made in `folder`, and put the certificate there."""
    wish = Enrol(secret=secret, request=enrolment.make_request(folder), **more)
    answer = post(gateway.client(None), f"{API}/enrolments", wish, status)
    if status == 200:
        (folder / "ca.pem").write_text(gateway.client(None).get(f"{API}/authority").text)
        (folder / "certificate.pem").write_text(answer["certificate"])
    return answer


def client(gateway: Gateway, folder: Path) -> httpx.Client:
    url = f"https://127.0.0.1:{gateway.port}"
    return httpx.Client(base_url=url, verify=tls.client_context(folder), timeout=20, trust_env=False)


def test_a_workstation_enrols_with_a_key_made_by_itself(gateway: Gateway, tmp_path: Path) -> None:
    answer = enrol(gateway, tmp_path / "me", invite(gateway, "ct-1"))
    assert (answer["name"], answer["role"]) == ("ct-1", "workstation")
    with client(gateway, tmp_path / "me") as me:
        assert get(me, f"{API}/status")["objects"] == 0
        assert get(me, f"{API}/parties", 403)["code"] == "unauthorised"
    assert (tmp_path / "me/key.pem").stat().st_mode & 0o777 == 0o600
    named = tls.peer_from_der(pki.load_certificate(tmp_path / "me/certificate.pem").public_bytes(Encoding.DER))
    assert (named.name, named.role) == ("ct-1", "workstation")


def test_a_token_is_good_once(gateway: Gateway, tmp_path: Path) -> None:
    secret = invite(gateway, "ct-1")
    enrol(gateway, tmp_path / "a", secret)
    assert enrol(gateway, tmp_path / "b", secret, 403)["code"] == "unauthorised"


def test_a_token_ends(gateway: Gateway, tmp_path: Path) -> None:
    secret = invite(gateway, "ct-1", life_s=0.05)
    time.sleep(0.1)  # the token's own time
    assert "has ended" in enrol(gateway, tmp_path / "a", secret, 403)["message"]


@pytest.mark.parametrize("secret", ["", "x", "0" * 43])
def test_a_secret_that_was_never_given_is_refused(gateway: Gateway, tmp_path: Path, secret: str) -> None:
    assert enrol(gateway, tmp_path / "a", secret, 403)["code"] == "unauthorised"


def test_only_the_secret_s_hash_is_kept(gateway: Gateway, tmp_path: Path) -> None:
    secret = invite(gateway, "ct-1")
    for path in (tmp_path / "gateway").rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
    assert (tmp_path / "gateway/register.json").stat().st_mode & 0o777 == 0o600


def test_what_the_request_says_of_itself_counts_for_nothing(gateway: Gateway, tmp_path: Path) -> None:
    """The subject, or names of hosts, in the request: the certificate has the invitation's and no others."""
    key = keyfiles.load_certificate_key(_key(tmp_path))
    builder = x509.CertificateSigningRequestBuilder(
        subject_name=x509.Name(
            [
                x509.NameAttribute(x509.NameOID.COMMON_NAME, "admin-1"),
                x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "administrator"),
            ]
        )
    ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    names = x509.SubjectAlternativeName([x509.DNSName("gateway.example.org")])
    request = builder.add_extension(names, critical=False).sign(key, _sha256()).public_bytes(Encoding.PEM).decode()
    wish = Enrol(secret=invite(gateway, "ct-1"), request=request)
    answer = post(gateway.client(None), f"{API}/enrolments", wish)
    certificate = x509.load_pem_x509_certificate(answer["certificate"].encode())
    peer = tls.peer_from_der(certificate.public_bytes(Encoding.DER))
    assert (peer.name, peer.role, pki.hosts_of(certificate)) == ("ct-1", "workstation", set())
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def _key(folder: Path) -> Path:
    enrolment.make_request(folder / "me")
    return folder / "me/key.pem"


def _sha256() -> Any:
    from cryptography.hazmat.primitives.hashes import SHA256

    return SHA256()


@pytest.mark.parametrize(
    "request_", ["", "not PEM", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"]
)
def test_what_is_no_request_uses_the_token_up(gateway: Gateway, tmp_path: Path, request_: str) -> None:
    secret = invite(gateway, "ct-1")
    wish = Enrol(secret=secret, request=request_)
    assert post(gateway.client(None), f"{API}/enrolments", wish, 400)["code"] == "protocol"
    assert enrol(gateway, tmp_path / "a", secret, 403)["code"] == "unauthorised"


def enrol_node(gateway: Gateway, folder: Path, name: str, status: int = 200, **more: Any) -> Any:
    pki.ensure_signing_key(folder)
    key = pki.load_signing_key(folder)
    request = enrolment.make_request(folder)  # its signature differs each time
    proof = enrolment.prove(request, key)
    fields = {"public_key": key.public_key().public_bytes_raw().hex(), "proof": proof} | more
    wish = Enrol(secret=invite(gateway, name, "node", hosts=["127.0.0.1"]), request=request, **fields)
    answer = post(gateway.client(None), f"{API}/enrolments", wish, status)
    if status == 200:
        (folder / "ca.pem").write_text(gateway.client(None).get(f"{API}/authority").text)
        (folder / "certificate.pem").write_text(answer["certificate"])
    return answer


def test_a_new_node_counts_without_a_restart_and_after_one(
    gateway: Gateway, identities: Identities, tmp_path: Path
) -> None:
    answer = enrol_node(gateway, tmp_path / "node-9", "node-9")
    assert answer["gateway_public_key"] == identities.public_key("gateway-1")
    assert answer["heartbeat_port"] == gateway.heartbeat_port
    beat(gateway, tmp_path / "node-9", "node-9")
    assert state(gateway, "node-9") == "live"
    gateway.stop()
    again = Gateway(identities, gateway.config)
    try:
        assert state(again, "node-9") == "unknown"  # until it beats again
        beat(again, tmp_path / "node-9", "node-9")
        assert state(again, "node-9") == "live"
    finally:
        again.stop()


def beat(gateway: Gateway, folder: Path, name: str) -> None:
    """Send heartbeats until the gateway has counted one more, whatever it thought of it."""
    beat_ = heartbeat.Heartbeat(name, "disk-1", time.time_ns(), 1, "127.0.0.1", 9, "", 1 << 40, 0, 0, 0)
    before = beats(gateway)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(heartbeat.sign(beat_, pki.load_signing_key(folder)), ("127.0.0.1", gateway.heartbeat_port))
    for _ in range(500):
        if beats(gateway) > before:
            return
    raise AssertionError("the heartbeat did not arrive")


def beats(gateway: Gateway) -> float:
    lines = gateway.client(None).get("/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("fascicle_gateway_heartbeats_total"))


def state(gateway: Gateway, name: str) -> str:
    nodes = get(gateway.client("op-1"), f"{API}/status")["nodes"]
    return next((node["state"] for node in nodes if node["node_id"] == name), "none")


@pytest.mark.parametrize("wrong", [{"proof": bytes(64)}, {"public_key": "ab" * 32}, {"public_key": ""}, {"proof": b""}])
def test_a_node_must_have_the_key_that_it_names(gateway: Gateway, tmp_path: Path, wrong: dict[str, Any]) -> None:
    assert enrol_node(gateway, tmp_path / "node-9", "node-9", 403, **wrong)["code"] == "unauthorised"
    assert state(gateway, "node-9") == "none"


@pytest.mark.parametrize(
    ("name", "role"), [("gateway-1", "workstation"), ("node-1", "workstation"), ("node-1", "administrator")]
)
def test_a_name_has_one_role(gateway: Gateway, name: str, role: Any) -> None:
    wish = Invite(name=name, role=role)
    assert post(gateway.client("admin-1"), f"{API}/invitations", wish, 409)["code"] == "conflict"


@pytest.mark.parametrize("wrong", [{"name": "../x"}, {"name": "UPPER"}, {"name": ""}, {"role": "gateway"},{"role": "x"},
                                   {"life_s": 1e9}, {"hosts": ["a b"]}, {"hosts": ["x"] * 17}])  # fmt: skip
def test_an_invitation_that_does_not_fit_is_refused(gateway: Gateway, wrong: dict[str, Any]) -> None:
    body = {"name": "ct-1", "role": "workstation"} | wrong
    response = gateway.client("admin-1").post(f"{API}/invitations", content=msgspec.json.encode(body))
    assert (response.status_code, response.json()["code"]) == (400, "protocol")


def revoke(gateway: Gateway, name: str, status: int = 200) -> Any:
    return post(gateway.client("admin-1"), f"{API}/revocations", Revoke(name=name), status)


def test_revocation_counts_at_the_next_request_of_an_open_session(gateway: Gateway, tmp_path: Path) -> None:
    enrol(gateway, tmp_path / "a", invite(gateway, "ct-1"))
    enrol(gateway, tmp_path / "b", invite(gateway, "ct-2"))
    with client(gateway, tmp_path / "a") as a, client(gateway, tmp_path / "b") as b:
        assert get(a, f"{API}/status")["objects"] == 0
        revoke(gateway, "ct-1")
        assert "ct-1 was revoked" in get(a, f"{API}/status", 403)["message"]
        assert get(b, f"{API}/status")["objects"] == 0
        assert a.get("/health").text == "ok\n"  # which is anybody's
    parties = get(gateway.client("op-1"), f"{API}/parties")["parties"]
    assert [(each["name"], each["revoked"]) for each in parties] == [("ct-1", True), ("ct-2", False)]


def test_revocation_outlives_the_gateway_and_ends_by_enrolling_anew(
    gateway: Gateway, identities: Identities, tmp_path: Path
) -> None:
    enrol(gateway, tmp_path / "a", invite(gateway, "ct-1"))
    waiting = invite(gateway, "ct-1")
    revoke(gateway, "ct-1")
    gateway.stop()
    again = Gateway(identities, gateway.config)
    try:
        with client(again, tmp_path / "a") as a:
            assert get(a, f"{API}/status", 403)["code"] == "unauthorised"
        assert enrol(again, tmp_path / "b", waiting, 403)["code"] == "unauthorised"  # invitations end with it
        enrol(again, tmp_path / "c", invite(again, "ct-1"))
        with client(again, tmp_path / "a") as a, client(again, tmp_path / "c") as c:
            assert get(a, f"{API}/status", 403)["code"] == "unauthorised"
            assert get(c, f"{API}/status")["objects"] == 0
    finally:
        again.stop()


def test_a_revoked_node_of_the_configuration_counts_no_more(
    gateway: Gateway, identities: Identities, tmp_path: Path
) -> None:
    beat(gateway, identities["node-1"], "node-1")
    assert state(gateway, "node-1") == "live"
    revoke(gateway, "node-1")
    beat(gateway, identities["node-1"], "node-1")
    assert state(gateway, "node-1") == "none"
    assert get(gateway.client("node-1"), f"{API}/trust", 403)["code"] == "unauthorised"
    assert list(get(gateway.client("node-2"), f"{API}/trust")["revoked"]) == ["node-1"]
    gateway.stop()
    again = Gateway(identities, gateway.config)
    try:
        assert state(again, "node-1") == "none"
    finally:
        again.stop()


def test_the_command_says_when_nobody_of_that_name_was_enrolled(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A letter too few, and who was to be kept out is still in: the certificate may also be one made by hand."""
    enrol(gateway, tmp_path / "a", invite(gateway, "ct-1"))
    own = tmp_path / "administrator.json"
    credentials.save(gateway.identities.credentials("admin-1", gateway.port), own)
    for name, known in (("ct-l", False), ("ct-1", True), ("ct-1", True)):
        assert main(["revoke", name, "--to", str(own)]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{name} is revoked: at the gateway now")
        assert ("nobody of that name" not in said) == known, said


class Alone:
    """Membership without a gateway around it; `at` is called when the step of its name has been taken."""

    def __init__(self, identities: Identities, data: Path) -> None:
        data.mkdir()
        self.register = Register(data / "register.json")
        self.config = with_authority(identities, data)
        self.keys, self.nodes, self.at = NodeKeys(()), Nodes((), 10.0), dict[str, Any]()
        change = self.register.change

        async def changed(edit: Any) -> Any:
            answer = await change(edit)
            await self.note("changed")
            return answer

        self.register.change = changed  # type: ignore[method-assign]  # a moment between two steps
        signing = SigningKeys(identities["gateway-1"], data / "keys", self.register)
        self.membership = Membership(
            self.config, register=self.register, signing=signing, keys=self.keys, nodes=self.nodes, audit=self
        )

    async def note(self, event: str, *_: object, **__: object) -> None:
        if then := self.at.pop(event, None):
            await then()


BY = tls.Peer("admin-1", "administrator", "")


@pytest.mark.parametrize(("moment", "refused"), [("changed", True), ("party_enrolled", False)])
def test_a_node_that_is_revoked_while_it_enrols_is_not_let_in(
    identities: Identities, tmp_path: Path, moment: str, refused: bool
) -> None:
    alone, folder = Alone(identities, tmp_path / "data"), tmp_path / "node-9"

    async def revoke_now() -> None:
        await alone.membership.revoke("node-9", BY)

    async def scenario() -> None:
        invitation = await alone.membership.invite(Invite(name="node-9", role="node"), BY)
        alone.at[moment] = revoke_now
        with pytest.raises(UnauthorisedError, match="revoked while it enrolled") if refused else nullcontext():
            await alone.membership.enrol(wish_of_node(folder, invitation.secret))

    asyncio.run(scenario())
    assert "node-9" not in alone.keys
    assert "node-9" not in alone.nodes.node_ids
    assert "node-9" not in Register(tmp_path / "data/register.json").record.nodes()


class SlowWrites:
    """The register's file is written when `go_on` says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self._go_on, self._loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()
        monkeypatch.setattr(register_file, "write_file_durably", self._write)
        self.go_on = self._go_on.set

    def _write(self, *what: Any) -> None:
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self._go_on.wait(30)
        write_file_durably(*what)


async def run_until_all_wait() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_nobody_renews_while_being_revoked(
    identities: Identities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written in the next second, the new certificate would begin after what the revocation ends."""
    alone = Alone(identities, tmp_path / "data")
    der = pki.load_certificate(identities["ws-1"] / "certificate.pem").public_bytes(Encoding.DER)

    async def scenario() -> None:
        writes = SlowWrites(monkeypatch)
        revoking = asyncio.create_task(alone.membership.revoke("ws-1", BY))
        await writes.begun.wait()
        renewing = asyncio.create_task(alone.membership.renew(der, tls.peer_from_der(der)))
        await run_until_all_wait()
        assert not renewing.done()
        writes.go_on()
        await revoking
        with pytest.raises(UnauthorisedError, match="revoked"):
            await renewing

    asyncio.run(scenario())


def test_a_revocation_that_waited_ends_what_was_renewed_before_it(
    identities: Identities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Alone(identities, tmp_path / "data")
    der = pki.load_certificate(identities["ws-1"] / "certificate.pem").public_bytes(Encoding.DER)
    now_s = [time.time() - 60]
    monkeypatch.setattr(membership, "time", SimpleNamespace(time=lambda: now_s[0]))

    async def scenario() -> bytes:
        writes = SlowWrites(monkeypatch)
        waited_for = asyncio.create_task(alone.register.change(lambda record: (record, None)))
        await writes.begun.wait()
        renewing = asyncio.create_task(alone.membership.renew(der, tls.peer_from_der(der)))
        revoking = asyncio.create_task(alone.membership.revoke("ws-1", BY))
        await run_until_all_wait()
        now_s[0] = time.time() + 5  # a minute later, by the clock that revocation reads
        writes.go_on()
        await waited_for
        certificate = x509.load_pem_x509_certificate((await renewing).certificate.encode())
        await revoking
        return certificate.public_bytes(Encoding.DER)

    assert alone.membership.is_revoked(tls.peer_from_der(asyncio.run(scenario())))


def wish_of_node(folder: Path, secret: str) -> Enrol:
    pki.ensure_signing_key(folder)
    key = pki.load_signing_key(folder)
    request = enrolment.make_request(folder)
    public_key = key.public_key().public_bytes_raw().hex()
    return Enrol(secret=secret, request=request, public_key=public_key, proof=enrolment.prove(request, key))


def test_of_two_invitations_for_one_name_the_other_role_ends_with_the_first_enrolment(
    identities: Identities, tmp_path: Path
) -> None:
    """The role was mistyped and invited once more: a node must not be forgotten at the next start for it."""
    alone = Alone(identities, tmp_path / "data")

    async def scenario() -> None:
        as_node, as_workstation = [
            await alone.membership.invite(Invite(name="n-9", role=role), BY) for role in ("node", "workstation")
        ]
        await alone.membership.enrol(wish_of_node(tmp_path / "n-9", as_node.secret))
        wish = Enrol(secret=as_workstation.secret, request=enrolment.make_request(tmp_path / "me"))
        with pytest.raises(ConflictError, match="`n-9` is the name of a node"):
            await alone.membership.enrol(wish)

    asyncio.run(scenario())
    assert Register(tmp_path / "data/register.json").record.nodes().keys() == {"n-9"}


def test_a_clock_that_is_put_back_keeps_revoked_who_was_and_revokes_who_enrolled_before(tmp_path: Path) -> None:
    register = Register(tmp_path / "register.json")
    party = Party(role="workstation", hosts=[], public_key="", enrolled_at_s=5000, not_before_s=5000)

    async def scenario() -> None:
        await register.change(lambda record: (replace(record, parties={"ct-1": party}), None))
        await register.revoke("ct-1", lambda: 1000)
        assert register.record.is_revoked("ct-1", 5000)
        await register.revoke("ct-1", lambda: 900)
        assert register.record.is_revoked("ct-1", 5000)

    asyncio.run(scenario())


def test_nobody_is_enrolled_by_a_clock_that_stands_before_the_revocation(
    identities: Identities, tmp_path: Path
) -> None:
    alone = Alone(identities, tmp_path / "data")

    async def scenario() -> None:
        await alone.register.revoke("ct-1", lambda: int(time.time()) + 3600)
        invitation = await alone.membership.invite(Invite(name="ct-1", role="workstation"), BY)
        wish = Enrol(secret=invitation.secret, request=enrolment.make_request(tmp_path / "me"))
        with pytest.raises(ConflictError, match="set the gateway's clock"):
            await alone.membership.enrol(wish)

    asyncio.run(scenario())


def test_the_gateway_does_not_revoke_itself(gateway: Gateway) -> None:
    assert revoke(gateway, "gateway-1", 409)["code"] == "conflict"


def test_a_renewed_certificate_is_of_the_same_party_and_key(gateway: Gateway, tmp_path: Path) -> None:
    folder = tmp_path / "node-9"
    enrol_node(gateway, folder, "node-9")
    before = pki.load_certificate(folder / "certificate.pem")
    with client(gateway, folder) as node:
        renewed = x509.load_pem_x509_certificate(post(node, f"{API}/renewals")["certificate"].encode())
    assert renewed.serial_number != before.serial_number
    assert renewed.subject == before.subject
    assert renewed.public_key() == before.public_key()
    assert pki.hosts_of(renewed) == pki.hosts_of(before) == {"127.0.0.1"}
    revoke(gateway, "node-9")
    with client(gateway, folder) as node:
        assert post(node, f"{API}/renewals", status=403)["code"] == "unauthorised"


def test_without_the_authority_nobody_is_enrolled(identities: Identities, tmp_path: Path) -> None:
    running = Gateway(identities, settings(identities, tmp_path / "gateway"))
    try:
        wish = Invite(name="ct-1", role="workstation")
        answer = post(running.client("admin-1"), f"{API}/invitations", wish, 409)
        assert "holds no authority" in answer["message"]
        assert post(running.client("ws-1"), f"{API}/renewals", status=409)["code"] == "conflict"
    finally:
        running.stop()


def test_a_rotation_that_is_asked_for_again_while_it_goes_on_is_the_same(
    tmp_path: Path, identities: Identities
) -> None:
    """Tickets are signed with no key that nodes may not know yet, and the key of those that are out stays good."""
    now = [1000.0]
    keys = SigningKeys(identities["gateway-1"], tmp_path / "keys", Register(tmp_path / "r.json"), clock=lambda: now[0])
    signs = keys.current()[0].public_key().public_bytes_raw().hex()
    trust = asyncio.run(keys.rotate(revoke_tickets=False))
    now[0] += OVERLAP_S / 2
    assert asyncio.run(keys.rotate(revoke_tickets=False)) == trust
    assert keys.current()[0].public_key().public_bytes_raw().hex() == signs == trust.keys[1]
    assert len(asyncio.run(keys.rotate(revoke_tickets=True)).keys) == 1


def test_keys_of_tickets_overlap_and_an_epoch_revokes(tmp_path: Path, identities: Identities) -> None:
    now = [1000.0]
    keys = SigningKeys(identities["gateway-1"], tmp_path / "keys", Register(tmp_path / "r.json"), clock=lambda: now[0])

    async def rotate(*, revoke_tickets: bool) -> Any:
        return await keys.rotate(revoke_tickets=revoke_tickets)

    first = keys.current()[0].public_key().public_bytes_raw().hex()
    assert first == identities.public_key("gateway-1")
    trust = asyncio.run(rotate(revoke_tickets=False))
    assert (len(trust.keys), trust.keys[1], trust.epoch) == (2, first, 0)
    assert keys.current()[0].public_key().public_bytes_raw().hex() == first  # nodes may not know the new one yet
    now[0] += OVERLAP_S
    second = keys.current()[0].public_key().public_bytes_raw().hex()
    assert second == trust.keys[0]
    now[0] += tickets.LIFETIME_S
    third = asyncio.run(rotate(revoke_tickets=False))
    assert (third.keys[1], len(third.keys)) == (second, 2)
    alone = asyncio.run(rotate(revoke_tickets=True))
    assert (len(alone.keys), alone.epoch) == (1, 1)
    key, epoch = keys.current()
    assert (key.public_key().public_bytes_raw().hex(), epoch) == (alone.keys[0], 1)
    again = SigningKeys(identities["gateway-1"], tmp_path / "keys", Register(tmp_path / "r.json"), clock=lambda: now[0])
    assert again.trust() == alone
    assert isinstance(again.current()[0], Ed25519PrivateKey)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "keys").iterdir())


def test_no_key_is_pushed_out_while_a_ticket_of_it_may_be_good(tmp_path: Path, identities: Identities) -> None:
    """Or nodes refuse a ticket that has not ended; the second rotation says when it will be possible."""
    now = [1000.0]
    keys = SigningKeys(identities["gateway-1"], tmp_path / "keys", Register(tmp_path / "r.json"), clock=lambda: now[0])
    trust = asyncio.run(keys.rotate(revoke_tickets=False))
    now[0] = 1000.0 + OVERLAP_S - 0.1
    last_s = now[0] + tickets.LIFETIME_S
    assert keys.current()[0].public_key().public_bytes_raw().hex() == trust.keys[1]  # a ticket of this moment
    for moment_s in (1000.0 + OVERLAP_S, last_s - 60, last_s):
        now[0] = moment_s
        with pytest.raises(ConflictError, match=r"good for \d+ s more"):
            asyncio.run(keys.rotate(revoke_tickets=False))
        assert keys.trust() == trust
    now[0] = last_s + 0.2
    third = asyncio.run(keys.rotate(revoke_tickets=False))
    assert third.keys[1:] == trust.keys[:1]
    now[0] += OVERLAP_S
    assert len(asyncio.run(keys.rotate(revoke_tickets=True)).keys) == 1
    assert len(asyncio.run(keys.rotate(revoke_tickets=False)).keys) == 2  # none was left that could be pushed out


def test_two_rotations_at_once_are_one(tmp_path: Path, identities: Identities) -> None:
    keys = SigningKeys(identities["gateway-1"], tmp_path / "keys", Register(tmp_path / "r.json"), clock=lambda: 1000.0)
    signs = keys.current()[0].public_key().public_bytes_raw().hex()

    async def both() -> list[Any]:
        return await asyncio.gather(keys.rotate(revoke_tickets=False), keys.rotate(revoke_tickets=False))

    first, second = asyncio.run(both())
    assert first == second == keys.trust()
    assert first.keys[1] == signs == keys.current()[0].public_key().public_bytes_raw().hex()


def test_tickets_are_signed_with_what_nodes_are_told_to_trust(gateway: Gateway, identities: Identities) -> None:
    node = Node(identities, "node-1", identities.public_key("gateway-1"))
    try:
        node.beat(gateway)
        post(gateway.client("admin-1"), f"{API}/keys", RotateKeys(revoke_tickets=False))
        go = post(gateway.client("ws-1"), TRANSFERS, OpenTransfer(replicas=1))
        trust = get(gateway.client("node-1"), f"{API}/trust")
        keys = [pki.public_key_from_hex(key) for key in trust["keys"]]
        ticket = tickets.verify(msgspec.convert(go["ticket"], bytes, strict=False), *keys, epoch=trust["epoch"])
        assert (len(keys), ticket.epoch) == (2, 0)
        assert ticket.expires_at_s - time.time() <= tickets.LIFETIME_S
    finally:
        node.close()


def domain_in_a_ticket(gateway: Gateway, identities: Identities, node: Node) -> str:
    node.beat(gateway)
    go = post(gateway.client("ws-1"), TRANSFERS, OpenTransfer(replicas=1))
    trust = get(gateway.client("node-1"), f"{API}/trust")
    keys = [pki.public_key_from_hex(key) for key in trust["keys"]]
    ticket = tickets.verify(msgspec.convert(go["ticket"], bytes, strict=False), *keys, epoch=trust["epoch"])
    return ticket.nodes[0].failure_domain


def test_a_domain_that_is_told_counts_over_the_node_s_own_word_also_after_a_restart(
    gateway: Gateway, identities: Identities
) -> None:
    node = Node(identities, "node-1", identities.public_key("gateway-1"))
    admin = gateway.client("admin-1")
    try:
        own = domain_in_a_ticket(gateway, identities, node)
        post(admin, f"{API}/domains", TellDomain(name="node-1", domain="host-7"))
        assert domain_in_a_ticket(gateway, identities, node) == "host-7" != own
        gateway.stop()
        again = Gateway(identities, gateway.config)
        try:
            assert domain_in_a_ticket(again, identities, node) == "host-7"
            post(again.client("admin-1"), f"{API}/domains", TellDomain(name="node-1", domain=""))
            assert domain_in_a_ticket(again, identities, node) == own
        finally:
            again.stop()
    finally:
        node.close()


def test_a_domain_of_nobody_is_refused(gateway: Gateway) -> None:
    answer = post(gateway.client("admin-1"), f"{API}/domains", TellDomain(name="node-x", domain="host-7"), 404)
    assert answer["code"] == "not_stored"
