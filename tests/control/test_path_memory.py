"""What a path taught is there for the next transfer, and nothing in the file can hurt."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.control.path_memory import (
    PATHS_MAX,
    STALE_S,
    PathFacts,
    default_path,
    load,
    recall,
    remember,
    store,
)

KEY = "https://gateway:8443 cubic"


def facts(flows: int = 8, seen_at_s: float = 1e9) -> PathFacts:
    return PathFacts(flows=flows, goodput_bytes_s=1e6, rtt_s=0.08, seen_at_s=seen_at_s)


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "state" / "fascicle" / "paths.json"
    assert load(path) == {}
    store(path, KEY, facts(8))
    store(path, "../../etc/passwd", facts(9))
    store(path, KEY, facts(12))
    assert load(path) == {KEY: facts(12), "../../etc/passwd": facts(9)}
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["fascicle", "paths.json", "state"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_oldest_paths_are_forgotten() -> None:
    memory: dict[str, PathFacts] = {}
    for number in range(PATHS_MAX + 10):
        memory = remember(memory, f"path {number}", facts(seen_at_s=1e9 + number))
    assert len(memory) == PATHS_MAX
    assert "path 9" not in memory and "path 10" in memory
    assert KEY in remember(memory, KEY, facts(seen_at_s=0.0))


def test_a_path_that_was_not_used_for_a_month_is_a_stranger() -> None:
    memory = remember({}, KEY, facts())
    assert recall(memory, KEY, 1e9 + STALE_S) == facts()
    assert recall(memory, KEY, 1e9 + STALE_S + 1) is None
    assert recall(memory, "another", 1e9) is None


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b'{"version": 1, "paths": {"a": {"flows": 0}}}',
        b'{"version": 1, "paths": {"a": {"flows": 9999, "goodput_bytes_s": 1, "rtt_s": 1, "seen_at_s": 1}}}',
        b'{"version": 2, "paths": {}}',
        b'{"version": 1, "paths": {"\xff": 1}}',
        b"[1]",
    ],
)
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damaged: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "paths.json"
    path.write_bytes(damaged)
    assert load(path) == {}
    assert "path_memory_begun_anew" in "".join(capsys.readouterr())
    store(path, KEY, facts())
    assert load(path) == {KEY: facts()}


@given(st.binary(max_size=200))
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("memory") / "paths.json"
    path.write_bytes(raw)
    assert load(path) == {}


def test_a_folder_in_its_place_is_no_memory(tmp_path: Path) -> None:
    assert load(tmp_path) == {}


def test_where_a_users_memory_is() -> None:
    assert default_path({"HOME": "/h"}) == Path("/h/.local/state/fascicle/paths.json")
    assert default_path({"HOME": "/h", "XDG_STATE_HOME": "/s"}) == Path("/s/fascicle/paths.json")
    assert default_path({"HOME": "/h", "XDG_STATE_HOME": "relative"}) == Path("/h/.local/state/fascicle/paths.json")
