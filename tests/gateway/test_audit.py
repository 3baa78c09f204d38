"""The audit trail: what is answered is in it, every change, gap, swap and cut is found, nothing of patients."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from fascicle.cli import main
from fascicle.layout import to_toml
from gateway import audit, trail
from gateway.audit import REFUSALS_MAX, Audit
from gateway.trail import START, Head
from tests.gateway.kit import TRANSFERS, Gateway, Identities, Node, closing_all, images, post, settings, upload
from transfer import disk, pki
from transfer.api import OpenRead
from transfer.errors import CorruptError, FullError, SettingsError, StorageError
from transfer.membership import Enrol, Invite, Revoke, RotateKeys

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()


def make(count: int, key: Ed25519PrivateKey = KEY) -> tuple[list[bytes], Head]:
    head, lines = START, []
    for number in range(count):
        head, line = trail.append(head, {"at": "now", "event": "x", "by": f"p{number}"}, key)
        lines.append(line)
    return lines, head


LINES, END = make(6)


def test_what_was_written_is_sound() -> None:
    assert trail.verify(LINES, PUBLIC, [END, START]) == END == Head(6, LINES[-1][:64].decode())
    assert json.loads(LINES[2].split(b" ", 2)[2])["n"] == 3


def test_every_single_bit_counts() -> None:
    whole = b"".join(LINES[:3])
    for bit in range(len(whole) * 8):
        altered = bytearray(whole)
        altered[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(CorruptError):
            trail.verify(bytes(altered).splitlines(keepends=True), PUBLIC, [Head(3, LINES[2][:64].decode())])


@pytest.mark.parametrize("at", range(6))
def test_a_removed_line_is_found(at: int) -> None:
    with pytest.raises(CorruptError, match=f"line {at + 1} of" if at < 5 else "cut off its end"):
        trail.verify(LINES[:at] + LINES[at + 1 :], PUBLIC, [END])


@pytest.mark.parametrize("at", range(5))
def test_lines_that_changed_places_are_found(at: int) -> None:
    with pytest.raises(CorruptError, match=f"line {at + 1} of the audit trail was changed"):
        trail.verify([*LINES[:at], LINES[at + 1], LINES[at], *LINES[at + 2 :]], PUBLIC)


@pytest.mark.parametrize("at", range(7))
def test_a_line_written_by_another_hand_is_found(at: int) -> None:
    other, _ = make(7, Ed25519PrivateKey.generate())
    with pytest.raises(CorruptError, match=f"line {at + 1} of"):
        trail.verify([*LINES[:at], other[at], *LINES[at:]], PUBLIC)
    with pytest.raises(CorruptError, match=f"line {at + 1} of" if at else "line 1"):
        trail.verify([*LINES[:at], LINES[at - 1], *LINES[at:]], PUBLIC)  # one of ours, once more


@pytest.mark.parametrize("kept", range(6))
def test_a_cut_at_the_end_is_found_by_an_anchor_and_by_nothing_else(kept: int) -> None:
    assert trail.verify(LINES[:kept], PUBLIC).count == kept
    with pytest.raises(CorruptError, match=f"ends at line {kept} and an anchor says 6"):
        trail.verify(LINES[:kept], PUBLIC, [END])
    if kept:
        with pytest.raises(CorruptError, match="cut or none"):
            trail.verify([*LINES[: kept - 1], LINES[kept - 1][:-1]], PUBLIC)


def test_another_trail_of_the_same_length_does_not_go_through_the_anchor() -> None:
    other, _ = make(5)
    head, line = trail.append(trail.verify(other, PUBLIC), {"at": "later", "event": "y", "by": "z"}, KEY)
    assert head.count == 6
    with pytest.raises(CorruptError, match=r"line 6 .* not the one that the anchor"):
        trail.verify([*other, line], PUBLIC, [END])


@pytest.mark.parametrize("text", ["", "6", "6:", "x:" + "0" * 64, "06:" + "0" * 64, f"6:{'0' * 63}", f"-1:{'0' * 64}"])
def test_what_is_no_anchor_is_said(text: str) -> None:
    with pytest.raises(SettingsError, match="COUNT:HASH"):
        trail.read_anchor(text)
    assert trail.read_anchor(str(END)) == END


def note_all(log: Audit, *events: str) -> None:
    async def run() -> None:
        await asyncio.gather(*(log.note(event, "me") for event in events))

    asyncio.run(run())


def entries(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line.split(" ", 2)[2]) for line in (data / "audit.log").read_text().splitlines()]


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    for turn in range(3):
        log = Audit(tmp_path, KEY)
        note_all(log, *(f"event_{turn}_{number}" for number in range(5)))
        log.close()
    assert audit.verify(tmp_path, PUBLIC, []).count == 15
    events = sorted(f"event_{turn}_{number}" for turn in range(3) for number in range(5))
    assert sorted(each["event"] for each in entries(tmp_path)) == events


@pytest.mark.parametrize("torn", [1, 50, 200])
def test_half_a_line_of_a_crash_is_cut_off_and_told(tmp_path: Path, torn: int) -> None:
    log = Audit(tmp_path, KEY)
    note_all(log, "first")
    log.close()
    with (tmp_path / "audit.log").open("ab") as file:
        file.write(LINES[1][:torn])
    again = Audit(tmp_path, KEY)
    note_all(again, "second")
    again.close()
    assert [each["event"] for each in entries(tmp_path)] == ["first", "trail_mended", "second"]
    assert entries(tmp_path)[1]["cut_bytes"] == torn
    assert audit.verify(tmp_path, PUBLIC, []).count == 3


def behind(log: Audit, *events: str) -> list[bytes]:
    """Return the lines of a group that follows."""
    head, lines = log.head, []
    for event in events:
        head, line = trail.append(head, {"event": event, "by": "me"}, KEY)
        lines.append(line)
    return lines


@pytest.mark.parametrize(("lost", "kept"), [((0,), []), ((1,), ["a"]), ((2,), ["a", "b"]), ((0, 1, 2), [])])
def test_a_group_of_which_a_power_cut_left_some_blocks_ends_before_its_hole(
    lost: Sequence[int], kept: Sequence[str], tmp_path: Path
) -> None:
    log = Audit(tmp_path, KEY)
    note_all(log, "first")
    log.close()
    group = behind(log, "a", "b", "c")
    left = [bytes(len(line)) if number in lost else line for number, line in enumerate(group)]
    with (tmp_path / "audit.log").open("ab") as file:
        file.writelines(left)
    again = Audit(tmp_path, KEY)
    note_all(again, "second")
    again.close()
    assert [each["event"] for each in entries(tmp_path)] == ["first", *kept, "trail_mended", "second"]
    assert entries(tmp_path)[-2]["cut_bytes"] == sum(map(len, group[len(kept) :]))
    assert audit.verify(tmp_path, PUBLIC, []).count == len(kept) + 3


def test_more_than_a_group_behind_a_damaged_line_is_not_what_a_crash_leaves(tmp_path: Path) -> None:
    log = Audit(tmp_path, KEY)
    note_all(log, "first")
    log.close()
    lines = behind(log, *["more"] * (audit.GROUP_MAX + 1))
    with (tmp_path / "audit.log").open("ab") as file:
        file.writelines([lines[0].replace(b"more", b"less"), *lines[1:]])
    with pytest.raises(SettingsError, match="line 2 of the audit trail was changed"):
        Audit(tmp_path, KEY)


class ForgetfulDisk:
    """The trail's file under a kernel that forgets to write what a failed flush was of, and shows it all the same."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path, self._durable, self.fails = path, bytearray(), False
        self._dirty: list[tuple[int, bytes]] = []
        self._write_at, self._flush_data = disk.write_at, disk.flush_data
        monkeypatch.setattr(disk, "write_at", self._write)
        monkeypatch.setattr(disk, "flush_data", self._flush)

    def _write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> int:
        if disk.is_open_as(descriptor, str(self._path)):
            self._dirty.append((offset, b"".join(buffers)))
        return self._write_at(descriptor, buffers, offset)

    def _flush(self, descriptor: int) -> None:
        if disk.is_open_as(descriptor, str(self._path)):
            dirty, self._dirty = self._dirty, []
            if self.fails:
                raise StorageError("the disk failed")
            for offset, data in dirty:
                self._durable.extend(bytes(max(0, offset - len(self._durable))))
                self._durable[offset : offset + len(data)] = data
        self._flush_data(descriptor)

    def cut_power(self) -> None:
        self._path.write_bytes(self._durable)


def test_what_a_failed_flush_was_of_is_written_again_before_anything_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under = ForgetfulDisk(tmp_path / "audit.log", monkeypatch)
    log = Audit(tmp_path, KEY)
    note_all(log, "first")
    under.fails = True
    with pytest.raises(StorageError):
        note_all(log, "second")
    under.fails = False
    log.close()
    again = Audit(tmp_path, KEY)
    note_all(again, "third")
    again.close()
    under.cut_power()
    assert audit.verify(tmp_path, PUBLIC, []).count == 3
    assert [each["event"] for each in entries(tmp_path)] == ["first", "second", "third"]


def test_a_trail_that_was_cut_or_changed_does_not_go_on(tmp_path: Path) -> None:
    log = Audit(tmp_path, KEY)
    note_all(log, "first", "second", "third")
    log.close()
    whole = (tmp_path / "audit.log").read_bytes()
    (tmp_path / "audit.log").write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    with pytest.raises(SettingsError, match="ends at line 2 and was 3 lines long"):
        Audit(tmp_path, KEY)
    with pytest.raises(CorruptError, match="cut off its end"):
        audit.verify(tmp_path, PUBLIC, [])
    (tmp_path / "audit.log").write_bytes(whole.replace(b'"n":3', b'"n":4'))
    with pytest.raises(CorruptError, match="line 3 of the audit trail was changed"):
        audit.verify(tmp_path, PUBLIC, [])


def test_nothing_is_answered_after_a_failed_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Audit(tmp_path, KEY)
    note_all(log, "first")

    def fail(_: int) -> None:
        raise StorageError("the disk failed")

    with monkeypatch.context() as broken:
        broken.setattr(disk, "flush_data", fail)
        with pytest.raises(StorageError, match="the disk failed"):
            note_all(log, "second")
    with pytest.raises(StorageError, match="start the gateway anew"):
        note_all(log, "third")  # the disk is well again, but what it has is not known
    assert log.failure.result(0).message == "the disk failed"
    log.close()


@pytest.mark.parametrize("flush_fails", [False, True])
def test_a_write_without_room_is_taken_back_and_the_next_one_is_made(
    flush_fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Audit(tmp_path, KEY)
    note_all(log, "first")
    write_at = disk.write_at

    def half(descriptor: int, buffers: list[bytes], offset: int) -> int:
        write_at(descriptor, [buffers[0][:-10]], offset)
        raise FullError("no room")

    def fail(_: int) -> None:
        raise StorageError("the disk failed")

    with monkeypatch.context() as full:
        full.setattr(disk, "write_at", half)
        if flush_fails:
            full.setattr(disk, "flush_data", fail)
        with pytest.raises(StorageError if flush_fails else FullError):
            note_all(log, "second")
    assert log.failure.done() == flush_fails
    if not flush_fails:
        note_all(log, "third")
    log.close()
    assert [each["event"] for each in entries(tmp_path)] == ["first", "third"][: 1 if flush_fails else 2]
    assert audit.verify(tmp_path, PUBLIC, []).count == (1 if flush_fails else 2)


def test_a_full_disk_is_told_once_and_then_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    log = Audit(tmp_path, KEY)
    monkeypatch.setattr(audit, "time", SimpleNamespace(monotonic=lambda: now_s))

    def refuse(*_: object) -> int:
        raise FullError("no room")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(disk, "write_at", refuse)
        for pause_s in (0.0, 1.0, 1.0, 9.0):
            now_s += pause_s
            with pytest.raises(FullError):
                note_all(log, "lost")
    log.close()
    assert [each["count"] for each in logs if each["event"] == "audit_full"] == [1, 3]


def test_a_flood_of_refusals_is_counted_not_written(tmp_path: Path) -> None:
    log = Audit(tmp_path, KEY)
    for _ in range(10_000):
        log.refused("status", "x" * 1000, "workstation", "unauthorised")
    log._refusals._began_s -= 61.0  # a minute later
    log.refused("status", "x", "workstation", "unauthorised")
    log.close()
    found = entries(tmp_path)
    assert len(found) == REFUSALS_MAX + 1
    assert found[-1]["left_out"] == 10_000 - REFUSALS_MAX
    assert (tmp_path / "audit.log").stat().st_size < 64 << 10


def test_a_gateway_starts_behind_a_group_with_a_hole(identities: Identities, tmp_path: Path) -> None:
    config, key = settings(identities, tmp_path / "gateway"), pki.load_signing_key(identities["gateway-1"])
    (tmp_path / "gateway").mkdir()
    log = Audit(tmp_path / "gateway", key)
    note_all(log, "first")
    log.close()
    with (tmp_path / "gateway" / "audit.log").open("ab") as file:
        file.write(bytes(100) + trail.append(log.head, {"event": "transfer_committed", "by": "me"}, key)[1])
    Gateway(identities, config).stop()
    assert [each["event"] for each in entries(tmp_path / "gateway")] == ["first", "trail_mended"]


@pytest.fixture
def gateway(identities: Identities, tmp_path: Path) -> Iterator[Gateway]:
    config = settings(identities, tmp_path / "gateway", authority=str(identities.folder / "ca"))
    running = Gateway(identities, config)
    yield running
    running.stop()


def test_what_happens_is_written_and_nothing_of_patients(
    gateway: Gateway, identities: Identities, tmp_path: Path
) -> None:
    administrator, data = gateway.client("admin-1"), tmp_path / "gateway"
    with closing_all([Node(identities, "node-1", identities.public_key("gateway-1"))]) as (node,):
        node.beat(gateway)
        secret = post(administrator, "/api/v1/invitations", Invite(name="ct-1", role="workstation"))["secret"]
        post(gateway.client(None), "/api/v1/enrolments", Enrol(secret=secret, request="none"), 400)
        post(gateway.client(None), "/api/v1/enrolments", Enrol(secret="guessed", request="none"), 403)
        post(gateway.client("op-1"), TRANSFERS, {}, 403)
        transfer_id, _ = upload(gateway.client("ws-1"), images(3, patient="SECRET-ID"), node)
        post(gateway.client("op-1"), "/api/v1/reads", OpenRead(rights=["get"]))
        post(gateway.client("ws-1"), "/api/v1/renewals")
        post(administrator, "/api/v1/revocations", Revoke(name="ct-1"))
        post(administrator, "/api/v1/keys", RotateKeys())
        head = administrator.get("/api/v1/audit/head").json()
    gateway.stop()
    found = [(each["event"], each["by"]) for each in entries(data)]
    assert sorted(found) == sorted(
        [
            ("party_invited", "admin-1"),
            ("access_refused", ""),
            ("access_refused", "op-1"),
            ("transfer_opened", "ws-1"),
            ("transfer_committed", "ws-1"),
            ("read_opened", "op-1"),
            ("certificate_renewed", "ws-1"),
            ("party_revoked", "admin-1"),
            ("keys_rotated", "admin-1"),
        ]
    )
    key = pki.load_signing_key(identities["gateway-1"]).public_key()
    assert audit.verify(data, key, [Head(head["count"], head["hash"])]).count == len(found)
    committed = next(each for each in entries(data) if each["event"] == "transfer_committed")
    assert (committed["transfer_id"], committed["objects"]) == (transfer_id, 3)
    text = (data / "audit.log").read_text()
    assert not [word for word in ("SECRET", "Doe", "20260101", "1.2.3", secret) if word in text]


def test_each_line_is_written_before_its_answer(gateway: Gateway, identities: Identities, tmp_path: Path) -> None:
    """Many at once: whenever an answer is there, the file has the line of it."""
    problems: list[str] = []

    def invite(number: int) -> None:
        name = f"ct-{number}"
        client = gateway.client("admin-1")
        post(client, "/api/v1/invitations", Invite(name=name, role="workstation"))
        if f'"about":"{name}"' not in (tmp_path / "gateway/audit.log").read_text():
            problems.append(name)

    threads = [threading.Thread(target=invite, args=(number,)) for number in range(20)]
    gateway.client("admin-1")
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert problems == []
    assert len(entries(tmp_path / "gateway")) == 20


def test_the_command(identities: Identities, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    log = Audit(data, pki.load_signing_key(identities["gateway-1"]))
    note_all(log, "first", "second")
    head = log.head
    log.close()
    config = tmp_path / "gateway.toml"
    address = "127.0.0.1:0"
    config.write_text(
        to_toml({"gateway_id": "g", "data": str(data), "identity": str(identities["gateway-1"]), "listen": address,
                 "heartbeat_listen": address})
    )  # fmt: skip
    assert main(["audit", "verify", "--config", str(config), "--anchor", str(head), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"count": 2, "hash": head.hash}
    assert main(["audit", "verify", "--config", str(config), "--anchor", f"3:{head.hash}", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "corrupt"
    assert main(["audit", "verify", "--json"]) == 2
    assert main(["audit", "anchor", "--json"]) == 2
