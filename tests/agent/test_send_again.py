"""`send` makes a new transfer of one that the gateway does not commit, a few times, and counts every object once."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from agent.attempts import Attempt, add_up
from agent.send import _Send
from tests.gateway.kit import Gateway, Identities, settings
from tests.store.objects import dicom
from tests.transfer.test_sender import open_cluster, write
from transfer import credentials
from transfer.api import Commit, CommitReceipt
from transfer.client import GatewayClient
from transfer.errors import ConflictError, UnusableFileError
from transfer.inspection import SourceFile
from transfer.outcomes import Counters, Kernel, Outcome, SendOptions

IMAGES = {"one": dicom("1.2.3.1"), "two": dicom("1.2.3.2"), "twin": dicom("1.2.3.2"), "stored": dicom("1.2.3.3")}


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Gateway]:
    identities = Identities(tmp_path_factory.mktemp("identities"))
    running = Gateway(identities, settings(identities, tmp_path / "gateway"))
    yield running
    running.stop()


@asynccontextmanager
async def open_sender(gateway: Gateway, folder: Path) -> AsyncIterator[Callable[..., Any]]:
    """Yield a function that sends files as the command does; one image is in the cluster already."""
    access = folder / "credentials.json"
    credentials.save(gateway.identities.credentials("ws-1", gateway.port), access)

    async def send(*paths: Path) -> dict[str, Any]:
        with trio.fail_after(40):
            return await _Send(SendOptions(encoding="raw"), as_json=True).run(list(paths), access)

    paths = write(folder / "in", **IMAGES)
    async with open_cluster(gateway, folder, ("node-1",)):
        assert (await send(folder / "in" / "stored"))["objects"] == 1
        yield lambda: send(*paths)


def refuse_commits(monkeypatch: pytest.MonkeyPatch, count: int) -> list[str]:
    """Have the gateway find something else in the next `count` commits than the sender claims."""
    commit, seen = GatewayClient.commit, list[str]()

    async def claim_wrongly(client: GatewayClient, transfer_id: str, claim: Commit) -> CommitReceipt:
        seen.append(transfer_id)
        return await commit(
            client, transfer_id, replace(claim, objects=claim.objects + 1) if len(seen) <= count else claim
        )

    monkeypatch.setattr(GatewayClient, "commit", claim_wrongly)
    return seen


async def test_a_refused_commit_is_followed_by_another_transfer(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_sender(gateway, tmp_path) as send:
        transfers = refuse_commits(monkeypatch, 2)
        capsys.readouterr()
        summary = await send()
        assert len(set(transfers)) == 3
        assert summary["receipt"].transfer_id == transfers[-1]
        assert (summary["objects"], summary["skipped"], summary["failed"]) == (2, 2, 0)  # a twin, and what was stored
        assert summary["bytes"] == summary["nodes"]["node-1"] == len(IMAGES["one"]) + len(IMAGES["two"])
        assert summary["encodings"] == {"raw": 2}
        out, err = capsys.readouterr()
        said = [line.partition(": transfer")[0] for line in err.splitlines() if "again" in line]
        assert said == ["fascicle: sending again (1 of 2)", "fascicle: sending again (2 of 2)"]
        assert "sending again" not in out
        again = await send()
        assert (again["objects"], again["skipped"]) == (0, 4)


async def test_it_is_not_tried_for_ever(gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_sender(gateway, tmp_path) as send:
        transfers = refuse_commits(monkeypatch, 1000)
        with pytest.RaisesGroup(pytest.RaisesExc(ConflictError, match="receipts are missing"), allow_unwrapped=True):
            await send()
        assert len(transfers) == 3


def outcome(name: str, object_id: str = "", *, skipped: bool = False) -> Outcome:
    error = None if object_id else UnusableFileError(f"{name}: the file is empty")
    return Outcome(SourceFile(Path(name), name, 10), object_id, skipped, error)


def test_an_object_is_counted_once_and_what_it_cost_each_time() -> None:
    first = Attempt(
        Counters(3, 30, 1, 1, 40, {"n1": 30}, {"raw": 3}, 4, kernel=Kernel(1.0, 0.0, 5, 1)),
        [outcome("a", "A"), outcome("b", "B"), outcome("c", "C"), outcome("d", "D", skipped=True), outcome("e")],
    )
    second = Attempt(  # B was found damaged, C's file is gone, D is damaged too, E can be read now and is stored
        Counters(2, 20, 2, 1, 25, {"n1": 10, "n2": 10}, {"raw": 1, "zstd": 1}, 2, kernel=Kernel(0.5, 0.0, 2, 0)),
        [
            outcome("a", "A", skipped=True),
            outcome("b", "B"),
            outcome("c"),
            outcome("d", "D"),
            outcome("e", "E", skipped=True),
        ],
    )
    total = add_up([first, second])
    assert (total.objects, total.bytes, total.skipped, total.failed) == (3, 30, 1, 1)
    assert (total.wire_bytes, total.flows) == (65, 4)
    assert (total.node_bytes, total.encodings) == ({"n1": 40, "n2": 10}, {"raw": 4, "zstd": 1})
    assert total.kernel == Kernel(1.5, 0.0, 7, 1)
    assert add_up([second]) is second.counters
