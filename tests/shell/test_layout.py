"""What `up` prepares: a folder that any later `up` finds again, and clear refusals."""

import datetime
import shutil
import socket
import time
import tomllib
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from fascicle import initial, layout, ports
from fascicle.layout import Cluster, Options, to_toml
from fascicle.ports import Ports
from gateway.register import Record
from transfer import credentials, enrolment, pki, tls
from transfer.errors import SettingsError


def read(path: Path) -> dict:
    return tomllib.loads(path.read_text())


def prepare(options: Options) -> Cluster:
    """Prepare a cluster whose process ends at once: its ports are let go."""
    return msgspec.structs.replace(layout.prepare(options), ports=())


def test_init_makes_a_folder_that_only_its_owner_may_enter(tmp_path: Path) -> None:
    data = tmp_path / "made"
    initial.prepare(
        initial.Options(data=data, host="127.0.0.1", port=1, heartbeat_port=2, listen="127.0.0.1", replicas=1)
    )
    assert data.stat().st_mode & 0o777 == 0o700


def test_the_first_run_makes_everything(tmp_path: Path) -> None:
    cluster = prepare(Options(data=tmp_path, nodes=2, port=0, replicas=2))
    gateway = read(tmp_path / "gateway/gateway.toml")
    assert cluster.url == f"https://{gateway['listen']}"
    assert (gateway["default_replicas"], gateway["plain"]) == (2, False)
    assert [place.node_id for place in cluster.places] == ["node-1", "node-2"]
    for place, entry in zip(cluster.places, gateway["node"], strict=True):
        node = read(place.config)
        identity = Path(node["identity"])
        assert entry == {"node_id": place.node_id, "public_key": (identity / "signing.pub").read_text().strip()}
        assert node["listen"] == node["advertise"] == place.address
        assert node["heartbeat"] == gateway["heartbeat_listen"]
        assert node["gateway_public_key"] == (tmp_path / "gateway/identity/signing.pub").read_text().strip()
    assert credentials.load(cluster.credentials).gateway == cluster.url
    listens = [gateway["listen"], gateway["heartbeat_listen"], *(place.address for place in cluster.places)]
    assert len(set(listens)) == 4


def test_what_is_plain_text_listens_inside_only(tmp_path: Path) -> None:
    prepare(Options(data=tmp_path, nodes=2, port=0, host="127.0.0.2"))
    for number in (1, 2):
        node = read(tmp_path / f"nodes/node-{number}/node.toml")
        assert node["metrics_listen"].startswith("127.0.0.1:")
        assert node["listen"].startswith("127.0.0.2:")
        assert (node["plain"], node["paper_listen"]) == (False, "")


def test_a_later_run_keeps_ports_keys_and_what_a_person_added(tmp_path: Path) -> None:
    first = prepare(Options(data=tmp_path, nodes=2, port=0))
    config = tmp_path / "nodes/node-1/node.toml"
    config.write_text(f"{config.read_text()}reserve_bytes = 12345\n")
    gateway = tmp_path / "gateway/gateway.toml"
    gateway.write_text(f"{gateway.read_text()}draining = true\n")  # of the entry that stands last: node-2's
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pem")}
    second = prepare(Options(data=tmp_path, port=0))
    assert second.url == first.url
    assert [place.address for place in second.places] == [place.address for place in first.places]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pem")} == before
    assert read(config)["reserve_bytes"] == 12345
    assert [entry.get("draining", False) for entry in read(gateway)["node"]] == [False, True]


def test_a_node_of_another_machine_that_a_person_added_stays(tmp_path: Path) -> None:
    prepare(Options(data=tmp_path, nodes=1, port=0))
    gateway = tmp_path / "gateway/gateway.toml"
    other = {"node_id": "far-1", "public_key": "ab" * 32, "draining": True}
    gateway.write_text(gateway.read_text() + to_toml({"node": [other]}))
    again = prepare(Options(data=tmp_path, nodes=2, port=0))
    assert [place.node_id for place in again.places] == ["node-1", "node-2"]
    entries = read(gateway)["node"]
    assert [entry["node_id"] for entry in entries] == ["node-1", "node-2", "far-1"]
    assert entries[2] == other


def test_a_port_that_was_taken_meanwhile_is_chosen_anew(tmp_path: Path) -> None:
    first = prepare(Options(data=tmp_path, nodes=2, port=0))
    taken = ports.port_of(first.places[0].address)
    with socket.create_server(("127.0.0.1", taken)):
        second = prepare(Options(data=tmp_path, port=0))
    assert ports.port_of(second.places[0].address) != taken
    assert second.places[1] == first.places[1]


def test_nodes_are_added_and_never_dropped(tmp_path: Path) -> None:
    assert len(prepare(Options(data=tmp_path, nodes=1, port=0)).places) == 1
    three = prepare(Options(data=tmp_path, nodes=3, port=0))
    assert [place.node_id for place in three.places] == ["node-1", "node-2", "node-3"]
    with pytest.raises(SettingsError, match="has 3 nodes, which may hold the only copy") as raised:
        prepare(Options(data=tmp_path, nodes=2, port=0))
    assert raised.value.exit_code == 2
    assert len(prepare(Options(data=tmp_path, port=0)).places) == 3


def test_a_later_run_wishes_as_many_replicas_as_before(tmp_path: Path) -> None:
    prepare(Options(data=tmp_path, nodes=2, port=0, replicas=2))
    prepare(Options(data=tmp_path, port=0))
    assert read(tmp_path / "gateway/gateway.toml")["default_replicas"] == 2
    prepare(Options(data=tmp_path, port=0, replicas=1))
    assert read(tmp_path / "gateway/gateway.toml")["default_replicas"] == 1


def test_a_revoked_node_is_left_alone_and_a_revoked_workstation_gets_another_key(tmp_path: Path) -> None:
    first = prepare(Options(data=tmp_path, nodes=2, port=0, replicas=2))
    before, node = credentials.load(first.credentials), files(tmp_path / "nodes/node-2")
    now_s = int(time.time()) - int(pki.CLOCK_SKEW.total_seconds())
    record = Record(revoked={"node-2": now_s, "workstation": now_s - 60})
    (tmp_path / "gateway/register.json").write_bytes(msgspec.json.encode(record))
    again = prepare(Options(data=tmp_path, port=0, host="127.0.0.2"))
    assert [place.node_id for place in again.places] == ["node-1"]
    assert [entry["node_id"] for entry in read(tmp_path / "gateway/gateway.toml")["node"]] == ["node-1"]
    assert files(tmp_path / "nodes/node-2") == node
    assert credentials.load(again.credentials).key == before.key  # made after what was revoked
    record = Record(revoked={"node-2": now_s, "workstation": now_s + 60})
    (tmp_path / "gateway/register.json").write_bytes(msgspec.json.encode(record))
    assert credentials.load(prepare(Options(data=tmp_path, port=0)).credentials).key != before.key


def test_without_its_authority_a_folder_is_not_begun_anew(tmp_path: Path) -> None:
    """Taken offline, or lost: the keys that nodes and gateway have signed with must stay."""
    prepare(Options(data=tmp_path, nodes=6, port=0))
    (tmp_path / "pki").rename(tmp_path / "offline")
    before = files(tmp_path)
    with pytest.raises(SettingsError, match=r"pki/ca\.pem is gone.*put"):
        prepare(Options(data=tmp_path, port=0))
    assert files(tmp_path) == before
    (tmp_path / "offline").rename(tmp_path / "pki")
    assert len(prepare(Options(data=tmp_path, port=0)).places) == 6


def test_a_node_counts_whose_identity_an_old_backup_does_not_know(tmp_path: Path) -> None:
    prepare(Options(data=tmp_path, nodes=2, port=0))
    shutil.rmtree(tmp_path / "pki/node-2")
    with pytest.raises(SettingsError, match="has 2 nodes"):
        prepare(Options(data=tmp_path, nodes=1, port=0))
    assert len(prepare(Options(data=tmp_path, port=0)).places) == 2


def files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_node_whose_folder_is_lost_comes_back_as_itself(tmp_path: Path) -> None:
    first = prepare(Options(data=tmp_path, nodes=2, port=0))
    folder = tmp_path / "nodes/node-2"
    before = files(folder)
    shutil.rmtree(folder)
    layout.restore(first.places[1])
    assert files(folder) == before
    shutil.rmtree(folder)
    assert len(prepare(Options(data=tmp_path, port=0)).places) == 2
    assert files(folder / "identity") == files(tmp_path / "pki/node-2")
    assert files(folder).keys() == before.keys()


def renewed(data: Path, name: str, role: pki.Role) -> bytes:
    """Return what the gateway gives a party that asks for a newer certificate."""
    authority, own = pki.load_authority(data / "pki"), pki.load_certificate(data / "pki" / name / "certificate.pem")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pki, "CLOCK_SKEW", pki.CLOCK_SKEW - datetime.timedelta(seconds=1))
        made = enrolment.renew(authority, own, name=name, role=role)
    assert made.not_valid_before_utc > own.not_valid_before_utc
    return made.public_bytes(Encoding.PEM)


def test_what_was_renewed_meanwhile_stays(tmp_path: Path) -> None:
    first = prepare(Options(data=tmp_path, nodes=2, port=0))
    parties: list[tuple[str, pki.Role]] = [("gateway", "gateway"), ("node-1", "node"), ("workstation", "workstation")]
    newer = {name: renewed(tmp_path, name, role) for name, role in parties}
    node = tmp_path / "nodes/node-1/identity/certificate.pem"
    (tmp_path / "gateway/identity/certificate.pem").write_bytes(newer["gateway"])
    node.write_bytes(newer["node-1"])
    held = msgspec.structs.replace(credentials.load(first.credentials), certificate=newer["workstation"].decode())
    credentials.save(held, first.credentials)
    layout.restore(first.places[0])  # the node's process ended, and is started again
    assert node.read_bytes() == newer["node-1"]
    prepare(Options(data=tmp_path, port=0))
    assert node.read_bytes() == newer["node-1"]
    assert (tmp_path / "gateway/identity/certificate.pem").read_bytes() == newer["gateway"]
    assert credentials.load(first.credentials) == held
    shutil.rmtree(tmp_path / "nodes/node-1")  # and the original has it, too
    prepare(Options(data=tmp_path, port=0))
    assert node.read_bytes() == newer["node-1"]


def test_a_certificate_that_was_revoked_after_its_renewal_is_not_taken_over(tmp_path: Path) -> None:
    first = prepare(Options(data=tmp_path, nodes=1, port=0))
    before = credentials.load(first.credentials)
    newer = renewed(tmp_path, "workstation", "workstation")
    credentials.save(msgspec.structs.replace(before, certificate=newer.decode()), first.credentials)
    record = Record(revoked={"workstation": int(time.time()) + 60})
    (tmp_path / "gateway/register.json").write_bytes(msgspec.json.encode(record))
    assert credentials.load(prepare(Options(data=tmp_path, port=0)).credentials).key != before.key


def test_only_a_newer_certificate_of_the_same_key_and_authority_is_taken_over(tmp_path: Path) -> None:
    prepare(Options(data=tmp_path, nodes=2, port=0))
    original = tmp_path / "pki/node-1/certificate.pem"
    kept, older = original.read_bytes(), original.read_bytes()
    newer = renewed(tmp_path, "node-1", "node")
    pki.create_authority(tmp_path / "other/pki")
    shutil.copytree(tmp_path / "pki/node-1", tmp_path / "other/pki/node-1")
    of_another_authority = renewed(tmp_path / "other", "node-1", "node")
    of_another_key = renewed(tmp_path, "node-2", "node")
    for wrong in (b"", b"damaged", newer[:-60], older, of_another_authority, of_another_key):
        (tmp_path / "nodes/node-1/identity/certificate.pem").write_bytes(wrong)
        prepare(Options(data=tmp_path, port=0))
        assert original.read_bytes() == (tmp_path / "nodes/node-1/identity/certificate.pem").read_bytes() == kept


def test_more_replicas_than_nodes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--replicas 3 needs as many nodes, and there are 2"):
        prepare(Options(data=tmp_path, nodes=2, port=0, replicas=3))


def test_a_gateway_port_in_use_is_refused_by_number(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"port {port} of 127.0.0.1 is in use"):
            prepare(Options(data=tmp_path, nodes=1, port=port))


def test_a_host_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1"):
        prepare(Options(data=tmp_path, nodes=1, host="192.0.2.1"))


def test_another_host_gets_new_certificates(tmp_path: Path) -> None:
    prepare(Options(data=tmp_path, nodes=1, port=0))
    prepare(Options(data=tmp_path, host="127.0.0.2", port=0))
    for identity in (tmp_path / "gateway/identity", tmp_path / "nodes/node-1/identity"):
        assert pki.is_current(identity, hosts=["127.0.0.2", "127.0.0.1", "localhost"])


def test_an_identity_that_was_half_made_for_another_host_is_made_anew(tmp_path: Path) -> None:
    """Killed, or without room, between key and certificate; and then the host is the old one again."""
    prepare(Options(data=tmp_path, nodes=1, port=0))
    pki.issue(pki.load_authority(tmp_path / "pki"), tmp_path / "other", name="gateway", role="gateway")
    shutil.copy(tmp_path / "other/key.pem", tmp_path / "pki/gateway/key.pem")
    prepare(Options(data=tmp_path, port=0))
    tls.server_context(tmp_path / "gateway/identity", require_client=False)
    (tmp_path / "pki/gateway/key.pem").unlink()
    prepare(Options(data=tmp_path, port=0))
    tls.server_context(tmp_path / "gateway/identity", require_client=False)


def test_the_papers_protocol_is_at_consecutive_ports(tmp_path: Path) -> None:
    port = Ports("127.0.0.1").keep_or_choose(None)
    cluster = prepare(Options(data=tmp_path, nodes=2, port=0, paper_port=port))
    assert [place.paper_address for place in cluster.places] == [f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"]
    assert [read(place.config)["paper_listen"] for place in cluster.places] == [
        place.paper_address for place in cluster.places
    ]


def test_a_folder_that_cannot_be_written_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="file"):
        prepare(Options(data=tmp_path / "file", nodes=1, port=0))


def test_chosen_ports_are_free_distinct_and_below_the_ephemeral_range() -> None:
    chosen = Ports("127.0.0.1", seed=1)
    given_out = [chosen.keep_or_choose(None) for _ in range(50)]
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(given_out)) == 50
    assert all(ports.LOW <= port < low for port in given_out)
    with pytest.raises(SettingsError):
        chosen.claim(given_out[0])


def test_what_is_given_out_is_nobody_elses_until_it_is_let_go() -> None:
    first, second = Ports("127.0.0.1", seed=1), Ports("127.0.0.1", seed=1)
    given_out = [first.keep_or_choose(None) for _ in range(20)]
    assert not {second.keep_or_choose(port) for port in given_out} & set(given_out)
    with pytest.raises(SettingsError, match=f"port {given_out[0]} of 127.0.0.1 is in use"):
        second.claim(given_out[0])
    del first
    assert [second.claim(port) for port in given_out] == given_out


@pytest.mark.parametrize("host", ["a" * 300, ".".join(["a" * 60] * 4)])
def test_a_host_of_any_length_is_judged_by_whether_it_is_here(host: str) -> None:
    with pytest.raises(SettingsError, match="cannot listen on aaa"):
        Ports(host).claim(10_300)


def test_addresses_are_written_and_read() -> None:
    assert ports.join("::1", 5) == "[::1]:5"
    assert ports.port_of(ports.join("::1", 5)) == ports.port_of("h:5") == 5
    assert [ports.port_of(text) for text in ("h", "", None, "h:x")] == [None] * 4


texts = st.text(st.characters(exclude_categories=["Cs"]))
whole_numbers = st.integers(-(1 << 63), (1 << 63) - 1)
values = st.one_of(texts, whole_numbers, st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
tables = st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), values, max_size=5)


@given(tables, st.lists(tables, max_size=3))
def test_what_is_written_as_toml_is_read_again(table: dict, nodes: list[dict]) -> None:
    whole = table | {"node": nodes}
    assert tomllib.loads(to_toml(whole)) == whole


def test_what_cannot_be_written_as_toml_is_refused() -> None:
    with pytest.raises(SettingsError):
        layout.to_toml({"a": {"b": 1}})
