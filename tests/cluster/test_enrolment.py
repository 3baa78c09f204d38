"""A cluster of several machines, by its commands alone: init, invite, enroll, send, rotate-keys, renew, revoke."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness import contents, eventually
from tests.free import free_port
from tests.store.objects import dicom

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


def fascicle(*words: object, code: int = 0) -> Any:
    """Run a command with --json; return its object."""
    command = [sys.executable, "-m", "fascicle", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def serving(role: str, config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        command = [sys.executable, "-m", "fascicle", role, "serve", "--config", str(config)]
        process = subprocess.Popen(command, stderr=out, stdout=out)
        try:
            yield process
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(20)


def enroll(made: Path, folder: Path, name: str, role: str, *more: object) -> Path:
    """Invite and enroll; return the file to go on with."""
    host = ("--host", "127.0.0.1") if role == "node" else ()
    token = fascicle("invite", name, "--role", role, *host, "--to", made / "administrator.json")["token"]
    joined = fascicle("enroll", "--token", token, "--data", folder, *more)
    assert (joined["name"], joined["role"]) == (name, role)
    again = fascicle("enroll", "--token", token, "--data", folder / "again", *more, code=2)
    assert (again["error"]["code"], "new one" in again["error"]["message"]) == ("unauthorised", True)
    return Path(joined["use"])


def live(administrator: Path) -> list[str]:
    nodes = fascicle("status", "--to", administrator)["nodes"]
    return sorted(node["node_id"] for node in nodes if node["state"] == "live")


def logged(log: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_from_nothing_to_a_revoked_workstation(tmp_path: Path) -> None:
    made, images = tmp_path / "made", tmp_path / "images"
    images.mkdir()
    for number in range(3):
        (images / f"{number}.dcm").write_bytes(dicom(f"1.2.{number + 1}"))
    ports = ("--port", free_port(), "--heartbeat-port", free_port(), "--listen", "127.0.0.1")
    begun = fascicle("init", made, "--host", "127.0.0.1", *ports, "--replicas", 1)
    assert fascicle("init", made, "--host", "127.0.0.1", code=2)["error"]["code"] == "settings"
    assert Path(begun["authority_key"]).stat().st_mode & 0o777 == 0o600
    administrator, log = made / "administrator.json", tmp_path / "node.log"
    with serving("gateway", Path(begun["config"]), tmp_path / "gateway.log"):
        eventually(lambda: logged(tmp_path / "gateway.log", "gateway_ready"))
        node = enroll(made, tmp_path / "node-1", "node-1", "node", "--listen", f"127.0.0.1:{free_port()}")
        with serving("node", node, log):
            eventually(lambda: live(administrator) == ["node-1"])
            workstation = enroll(made, tmp_path / "ct-1", "ct-1", "workstation")
            assert fascicle("send", images, "--to", workstation)["objects"] == 3
            fascicle("rotate-keys", "--to", administrator)
            eventually(lambda: logged(log, "trust_changed"))
            assert logged(log, "trust_changed")[-1]["keys"] == 2
            fascicle("renew", "--to", workstation)
            fascicle("rotate-keys", "--revoke-tickets", "--to", administrator)
            eventually(lambda: logged(log, "trust_changed")[-1]["epoch"] == 1)
            (images / "more.dcm").write_bytes(dicom("1.2.99"))
            assert fascicle("send", images, "--to", workstation)["objects"] == 1
            assert fascicle("get", "--all", tmp_path / "out", "--to", workstation)["objects"] == 4
            assert contents(tmp_path / "out") == contents(images)
            fascicle("revoke", "ct-1", "--to", administrator)
            refused = fascicle("send", images, "--to", workstation, code=2)
            assert (refused["error"]["code"], "was revoked" in refused["error"]["message"]) == ("unauthorised", True)
            assert [(p["name"], p["revoked"]) for p in fascicle("parties", "--to", administrator)["parties"]] == [
                ("ct-1", True),
                ("node-1", False),
            ]
            fascicle("revoke", "node-1", "--to", administrator)
            assert live(administrator) == []
            anchor = fascicle("audit", "anchor", "--to", administrator)
    printed = f"{anchor['count']}:{anchor['hash']}"
    trail = fascicle("audit", "verify", "--config", begun["config"], "--anchor", printed)
    assert trail["count"] >= anchor["count"] >= 12
    log_file = made / "gateway/audit.log"
    log_file.write_bytes(b"".join(log_file.read_bytes().splitlines(keepends=True)[:-1]))
    cut = fascicle("audit", "verify", "--config", begun["config"], "--anchor", printed, code=1)
    assert (cut["error"]["code"], "cut off" in cut["error"]["message"]) == ("corrupt", True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["enroll", "--token", "nonsense", "--data", "x"], "not a token"),
        (["invite", "UPPER", "--role", "node", "--to", "x"], "not a name"),
        (["invite", "node-1", "--role", "node", "--to", "x"], "--host"),
        (["revoke", "ct-1", "--to", "nowhere.json"], "cannot read the credentials"),
        (["init", "x", "--host", "0.0.0.0"], "not every address"),
    ],
)
def test_what_cannot_be_done_is_said_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in fascicle(*words, code=2)["error"]["message"]
    assert list(tmp_path.iterdir()) == []
