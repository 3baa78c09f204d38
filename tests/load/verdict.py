"""Whether anything was lost: every object whose commit was answered is listed and sound, every instance is on its way.

Refuses to do: measuring.
"""

import time
from typing import Any, Final

from bench.cluster import run
from tests.load.parts import Parts
from transfer.dicom import check_complete

DELIVERED_S: Final = 120.0
NAMED: Final = 5


def judge_objects(parts: Parts, names: set[str], *, deep: bool = True) -> list[str]:
    """Return what is wrong with the objects that were acknowledged."""
    listed = {entry["object_id"] for entry in _listing(parts)}
    lost = sorted(names - listed)
    problems = [f"LOST: {len(lost)} of {len(names)} not listed: {lost[:NAMED]}"] if lost else []
    if not deep:
        return problems
    checked = run("verify", "--deep", "--to", parts.credentials, "--json")
    return problems + ([f"verify: {checked.code} {checked.errors[-300:]} {checked.summary}"] if checked.code else [])


def judge_spool(parts: Parts, instances: set[str]) -> list[str]:
    """Return which instances that were answered with 0000 are neither in the spool nor delivered."""
    deadline = time.monotonic() + DELIVERED_S
    while lost := instances - _spooled(parts) - _delivered(parts):
        if time.monotonic() > deadline:
            return [f"LOST: {len(lost)} of {len(instances)} instances: {sorted(lost)[:NAMED]}"]
        time.sleep(0.5)
    return []


def _spooled(parts: Parts) -> set[str]:
    found = set()
    for path in (parts.folder / "spool/ready").iterdir():
        try:
            found.add(check_complete(path.read_bytes()).sop_instance_uid)
        except FileNotFoundError:
            continue  # delivered meanwhile
    return found


def _delivered(parts: Parts) -> set[str]:
    return {entry["identity"].get("sop_instance_uid", "") for entry in _listing(parts)}


def _listing(parts: Parts) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with parts.client() as client:
        after: str | None = ""
        while after is not None:
            answer = client.get("/api/v1/objects", params={"limit": 1000, **({"after": after} if after else {})})
            answer.raise_for_status()
            page = answer.json()
            found += page["objects"]
            after = page["next"]
    return found
