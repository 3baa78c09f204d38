"""DCMTK's storescu to the agent's C-STORE port: what got status 0000 reaches the store with its data set unchanged.

Also while the cluster is down, and over a kill -9 of the agent.
"""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from backports import zstd

from bench.cluster import open_cluster, resident_peak_bytes
from tests.cluster.harness import eventually, listing
from tests.cluster.wire import Peer, listening

STORESCU = shutil.which("storescu")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(STORESCU is None, reason="storescu (Debian: dcmtk) is not installed"),
]
# What storescu must be told to propose for the transfer syntaxes of a folder of the WG04 images.
PROPOSE = {
    "REF": "-xe",
    "RLE": "-xr",
    "JPLL": "-xs",
    "JPLY": "-xx",
    "JLSL": "-xt",
    "JLSN": "-xu",
    "J2KR": "-xv",
    "J2KI": "-xw",
}
SETTINGS = """\
[[destination]]
name = "cloud"
credentials = "{credentials}"

[scp]
listen = "127.0.0.1:{port}"
"""


class Agent:
    """`fascicle agent run` in a folder of its own, on a port that it keeps over restarts."""

    def __init__(self, folder: Path, credentials: Path) -> None:
        self.folder, self.credentials, self.port = folder, credentials, 0
        folder.mkdir()

    def start(self) -> None:
        settings = self.folder / "agent.toml"
        settings.write_text(SETTINGS.format(credentials=self.credentials, port=self.port))
        command = [sys.executable, "-m", "fascicle", "agent", "run", "--config", str(settings)]
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        ((_, self.port),) = eventually(lambda: self.process.poll() is None and listening(self.process.pid))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def store(self, *words: object) -> set[str]:
        """Run storescu; return the SOP Instance UIDs whose response was 0000."""
        command = [str(STORESCU), "-d", "-aec", "FASCICLE", *map(str, words[:1]), "127.0.0.1", str(self.port)]
        done = subprocess.run(
            [*command, *map(str, words[1:])], capture_output=True, text=True, timeout=120, check=False, errors="replace"
        )
        answers = re.findall(
            r"Affected SOP Instance UID\s*: ([\d.]+)\n(?:(?!Affected).*\n)*?D: DIMSE Status\s*: (0x[0-9a-f]{4})",
            done.stdout + done.stderr,
        )
        return {uid for uid, status in answers if status == "0x0000"}


@contextmanager
def running(agent: Agent) -> Iterator[Agent]:
    agent.start()
    try:
        yield agent
    finally:
        if agent.process.poll() is None:
            agent.stop()


def data_sets(folder: Path) -> dict[str, pydicom.Dataset]:
    """Read every image, without Data Set Trailing Padding (PS3.10 7.2), which storescu leaves out when it sends."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data_set = pydicom.dcmread(path)
            data_set.pop((0xFFFC, 0xFFFC), None)
            found[str(data_set.SOPInstanceUID)] = data_set
    return found


def unpacked(source: Path, target: Path) -> Path:
    """Copy a folder of images; what is zstd-compressed there is unpacked."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        data = path.read_bytes()
        (target / path.stem).write_bytes(zstd.decompress(data) if path.suffix == ".zst" else data)
    return target


def test_what_was_answered_0000_is_stored_unchanged(real_data: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(real_data / "ct_head", images / "ct_head", ignore=shutil.ignore_patterns("LICENSE*"))
    stored: set[str] = set()
    with open_cluster(tmp_path / "cluster", nodes=2) as cluster:
        agent = Agent(tmp_path / "agent", cluster.credentials)
        with running(agent):
            for name, flag in PROPOSE.items():
                stored |= agent.store(flag, "+sd", unpacked(real_data / "wg04" / name, images / name))
            assert len(stored) > 90
            eventually(lambda: len(listing(cluster)) == len(stored))
            assert resident_peak_bytes(agent.process.pid) < 300_000_000
            assert cluster.stop() == []
            stored |= agent.store("-xe", "+sd", images / "ct_head")  # nobody to send it to
            assert agent.stop(signal.SIGKILL) == -signal.SIGKILL
    before = data_sets(images)
    assert len(stored & data_sets(images / "ct_head").keys()) == 140
    with open_cluster(tmp_path / "cluster", nodes=2) as cluster, running(agent):
        eventually(lambda: len(listing(cluster)) == len(stored), within_s=60)
        assert cluster.run("get", "--all", tmp_path / "out").code == 0
    after = data_sets(tmp_path / "out")
    assert after.keys() == stored
    assert {uid for uid in stored if after[uid] != before[uid]} == set()


def test_a_hostile_association_costs_nothing(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "agent", tmp_path / "credentials.json")
    with open_cluster(tmp_path / "cluster", nodes=1) as cluster:
        agent.credentials = cluster.credentials
        with running(agent):
            before = resident_peak_bytes(agent.process.pid)
            for data in (b"\x01\x00\xff\xff\xff\xff" + bytes(100_000), b"GET / HTTP/1.1\r\n\r\n", bytes(100_000)):
                with Peer("127.0.0.1", agent.port) as peer:
                    peer.say_all(data)
                    peer.read_to_end()
            assert resident_peak_bytes(agent.process.pid) - before < 20_000_000
            assert agent.process.poll() is None
