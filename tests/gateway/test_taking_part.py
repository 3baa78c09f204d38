"""Which nodes a rebuild asks: what only a node that joined by enrolment holds must not be missing from the listing."""

from pathlib import Path

import msgspec

from gateway.rebuild import taking_part
from gateway.register import Party, Record
from tests.gateway.kit import Identities, settings


def party(role: str = "node", not_before_s: int = 100) -> Party:
    return Party(role=role, hosts=[], public_key="ab" * 32, enrolled_at_s=100, not_before_s=not_before_s)


def test_enrolled_nodes_take_part_and_revoked_ones_do_not(identities: Identities, tmp_path: Path) -> None:
    config = settings(identities, tmp_path)
    configured = {entry.node_id for entry in config.node}
    assert taking_part(config) == ({}, configured)
    record = Record(
        parties={
            "node-8": party(),
            "node-9": party(),
            "node-2": party(not_before_s=200),  # revoked, then enrolled anew
            "ws-9": party("workstation"),
        },
        revoked={"node-1": 150, "node-2": 150, "node-9": 150},
    )
    (Path(config.data) / "register.json").write_bytes(msgspec.json.encode(record))
    enrolled, known = taking_part(config)
    assert enrolled == {"node-8": "ab" * 32, "node-2": "ab" * 32}
    assert known == configured - {"node-1"} | {"node-8"}
