"""`fascicle drain` and `fascicle trash` as people and programs see them, against a gateway."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.status import drain_text
from fascicle.cli import main
from tests.gateway.kit import Identities, images
from tests.repair.test_repairer import repairs, store, wait
from tests.upkeep.kit import running
from tests.upkeep.test_upkeep import hold
from transfer import credentials
from transfer.api import DrainStatus


def test_orphans_go_aside_are_listed_come_back_and_are_deleted(
    identities: Identities, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(identities, tmp_path, trash_s=86_400) as (gateway, nodes):
        own = tmp_path / "administrator.json"
        credentials.save(identities.credentials("admin-1", gateway.port), own)

        def fascicle(*words: str, code: int = 0) -> Any:
            capsys.readouterr()
            assert main([*words, "--to", str(own), "--json"]) == code
            return json.loads(capsys.readouterr().out.splitlines()[-1])

        store(gateway, nodes, "node-1", "node-2")
        ids = sorted(one.hex() for one in hold(nodes, "node-3", *images(5, seed="stray")))
        wait(lambda: repairs(gateway)["orphan_objects"] == 5)
        assert fascicle("trash", "orphans") == {"objects": 5}
        listed = fascicle("trash", "list")
        assert (listed["objects"], [one["object_id"] for one in listed["nodes"]["node-3"]]) == (5, ids)
        assert main(["trash", "list", "--to", str(own), "--object", ids[0]]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("1 copies are put aside")
        assert lines[1].startswith(f"node-3  {ids[0]}  orphan")
        assert "kept 1.0 days more" in lines[1]
        strange = "0" * 64
        undone = fascicle("trash", "undo", "--object", ids[0], "--object", ids[1], "--object", strange, code=1)
        assert undone == {"asked": 2, "objects": 2, "missing": [strange]}
        assert main(["trash", "undo", "--to", str(own), "--object", strange]) == 1
        assert (
            capsys.readouterr().out
            == f"0 of 0 copies are put back\n{strange} is in the trash of no node that is heard\n"
        )
        assert fascicle("trash", "list", "--node", "node-3")["objects"] == 3
        nodes["node-3"].aside.pop(bytes.fromhex(ids[4]))  # gone between the listing and the deletion
        assert fascicle("trash", "purge", "--all") == {"asked": 2, "objects": 2, "missing": []}
        assert fascicle("trash", "list") == {"objects": 0, "bytes": 0, "nodes": {}}
        assert fascicle("trash", "list", "--node", "node-9", code=1)["error"]["code"] == "not_stored"
        (drain,) = fascicle("drain", "node-1")["drains"]
        assert (drain["node_id"], drain["safe"]) == ("node-1", False)
        assert fascicle("drain", "node-1", "--undo") == {"drains": []}
        assert fascicle("drain", "node-9", code=1)["error"]["code"] == "not_stored"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trash", "undo", "--to", "x"], "say what to undo"),
        (["trash", "purge", "--all", "--object", "0" * 64, "--to", "x"], "say what to purge"),
        (["trash", "undo", "--object", "nonsense", "--to", "x"], "not an object id"),
        (["drain", "UPPER", "--to", "x"], "not a name"),
    ],
)
def test_what_cannot_be_done_is_said_with_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_a_drain_says_what_is_left_and_when_it_is_safe() -> None:
    def text(objects: int, claimed: int, *, safe: bool = False) -> str:
        return drain_text(
            DrainStatus(node_id="n", left_objects=objects, left_bytes=2_000_000, claimed_objects=claimed, safe=safe)
        )

    assert text(3, 0) == "drain n: 3 objects (2.00 MB) are to be copied from it; do not switch it off"
    assert "1 of open transfers are on it; do not" in text(0, 1)
    assert text(-1, -1) == "drain n: not looked at yet"
    assert text(0, 0, safe=True) == "drain n: nothing needs it any more; it is safe to switch off"
