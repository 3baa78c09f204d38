"""Catalogue, rebuild and queue at every moment of a power cut; each mistake in the use of SQLite shows."""

import asyncio
import errno
import os
import sqlite3
import sys
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import agent.database
from agent.queue import Queue
from gateway.database import Database, connect
from tests.faults.histories import sqlite_abi
from tests.faults.histories.crash_states import ERRORS, main, try_subject
from tests.faults.histories.database_mutants import DATABASE_MUTANTS, first_that_notices
from tests.faults.histories.databases import CATALOGUE, QUEUE, SUBJECTS, new_item, open_databases
from tests.faults.histories.filesystem import walk
from tests.faults.histories.running import FLUSHES
from tests.faults.histories.sqlite_vfs import SqliteOnMachine
from tests.faults.histories.world import World, open_world, replaced_by
from tests.faults.real import catalogue_role
from transfer.disk import make_folders
from transfer.errors import FascicleError


def reason_against() -> str:
    try:
        sqlite_abi.library()
    except OSError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(reason_against()), reason=reason_against() or "SQLite can be reached")


@pytest.fixture
def world() -> Iterator[World]:
    world = World(1)
    world.strands._ratio = 0.0
    with open_world(world), open_databases(world):
        make_folders(str(CATALOGUE.parent))
        yield world


@pytest.mark.parametrize(("part", "seeds"), [(slice(0, 140, 10), 1), (slice(140, None), 1)])
def test_a_catalogue_holds_whole_steps_and_every_answered_one_after_a_power_cut(part: slice, seeds: int) -> None:
    counts = try_subject(SUBJECTS["catalogue"], range(seeds), part=part)
    assert counts["steps"] == 10
    assert counts["moments"] > 400
    assert counts["states"] == seeds * len(range(counts["moments"])[part])
    assert counts["different"] > counts["states"] / 4


def test_a_queue_holds_whole_steps_and_every_answered_one_after_a_power_cut_at_any_moment() -> None:
    counts = try_subject(SUBJECTS["queue"], range(6))
    assert counts["steps"] == 16
    assert counts["moments"] > 200 and counts["states"] == 6 * counts["moments"]
    assert counts["different"] > counts["moments"]


@pytest.mark.parametrize(("part", "seeds"), [(slice(0, None, 36), 1), (slice(-14, None), 6)])
def test_a_rebuild_leaves_the_old_catalogue_or_the_new_one(part: slice, seeds: int) -> None:
    counts = try_subject(SUBJECTS["rebuild"], range(seeds), part=part)
    assert counts["states"] >= 8 and counts["different"] >= 5


@pytest.mark.parametrize(("name", "every"), [("catalogue", 75), ("queue", 18), ("rebuild", 80)])
def test_a_call_that_fails_once_loses_nothing(name: str, every: int) -> None:
    counts = try_subject(SUBJECTS[name], range(0), errors=ERRORS, part=slice(every // 2, None, every))
    assert counts["errors"] >= 6


class QueueSteps:
    """The agent's queue, opened and left as by a kill."""

    def open(self) -> None:
        self._connection = agent.database.connect(QUEUE)

    def step(self, number: int) -> None:
        trio.run(Queue(self._connection).add, [new_item(str(number))])

    def leave(self) -> None:
        """Nothing: nobody closes what is killed."""

    def found(self) -> set[int]:
        return {int(row[3][0]) for row in SUBJECTS["queue"].dump()["item"]}


class CatalogueSteps:
    """The gateway's catalogue, opened and left as by a kill."""

    def open(self) -> None:
        self._database = Database(CATALOGUE)

    def step(self, number: int) -> None:
        asyncio.run(self._database.write(catalogue_role.units(number)[0]))

    def leave(self) -> None:
        self._database._waiting.put(None)
        self._database._thread.join()
        self._database._pool.shutdown()

    def found(self) -> set[int]:
        return {int(row[1].removeprefix("transfer-")) for row in SUBJECTS["catalogue"].dump()["transfer"]}


@contextmanager
def failing(machine: Any, calls: Collection[str], error: int) -> Iterator[None]:
    """Let these calls fail; what a flush that fails was of is lost, and shown all the same."""
    enter = machine._enter

    def fail(call: str, subject: str = "") -> None:
        if call in calls:
            raise OSError(error, os.strerror(error))
        enter(call, subject)

    machine._enter = fail
    yield
    machine._enter = enter


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("subject", [QueueSteps, CatalogueSteps])
def test_what_is_answered_behind_a_lost_flush_is_there_after_a_restart_and_a_power_cut(
    subject: type[QueueSteps | CatalogueSteps], seed: int
) -> None:
    world = World(seed)
    world.strands._ratio = 0.0
    with open_world(world), open_databases(world) as under, replaced_by({agent.database: {"CHECKPOINT_PAGES": 1000}}):
        make_folders(str(QUEUE.parent))
        make_folders(str(CATALOGUE.parent))
        machine, steps = world.machine, subject()
        steps.open()
        steps.step(1)
        machine.disk.flush_everything()
        with failing(machine, FLUSHES, errno.EIO), pytest.raises(FascicleError):
            steps.step(2)
        steps.leave()
        under.end_process()
        machine.start_again(power_cut=False)
        steps.open()
        steps.step(3)
        steps.leave()
        under.end_process()
        machine.start_again(power_cut=True)
        assert {1, 3} <= steps.found()


@pytest.mark.parametrize("subject", [QueueSteps, CatalogueSteps])
def test_a_log_that_finds_no_room_in_its_database_keeps_nobody_out(
    subject: type[QueueSteps | CatalogueSteps], world: World
) -> None:
    make_folders(str(QUEUE.parent))
    steps = subject()
    with replaced_by({agent.database: {"CHECKPOINT_PAGES": 1000}}):
        steps.open()
        steps.step(1)
        steps.leave()
        world.machine.start_again(power_cut=False)
        with failing(world.machine, {"pwrite"}, errno.ENOSPC):
            steps.open()
        steps.step(2)
        steps.leave()
        assert steps.found() == {1, 2}


@pytest.mark.parametrize("name", DATABASE_MUTANTS)
def test_a_mistake_in_the_use_of_sqlite_shows(name: str) -> None:
    violation = first_that_notices(name)
    assert violation is not None, "no power cut shows this mistake"
    assert DATABASE_MUTANTS[name].subject in str(violation)


def test_the_production_connections_are_on_the_simulated_disk(world: World) -> None:
    before = world.machine.calls
    with closing(connect(CATALOGUE, read_only=False)) as writer:
        writer.execute("CREATE TABLE t (x)")
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        names = [path for path, _ in walk(world.machine.disk.root)]
        assert names == [str(CATALOGUE), f"{CATALOGUE}-wal"]
    assert world.machine.calls > before + 10
    assert [path for path, _ in walk(world.machine.disk.root)] == [str(CATALOGUE)]
    assert not CATALOGUE.exists()


def test_the_simulated_locks_keep_writers_apart_and_let_readers_read(world: World) -> None:
    with (
        closing(connect(CATALOGUE, read_only=False)) as writer,
        closing(connect(CATALOGUE, read_only=False)) as other,
        closing(connect(CATALOGUE, read_only=True)) as reader,
    ):
        writer.execute("CREATE TABLE t (x)")
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (1)")
        other.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        writer.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,), "a snapshot stays as it was"
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (1,)


def test_the_system_has_its_own_file_system_back(tmp_path: Path, world: World) -> None:
    outside = SqliteOnMachine(world.machine)
    outside.register()
    outside.unregister()
    with closing(sqlite3.connect(tmp_path / "plain.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
    assert (tmp_path / "plain.db").stat().st_size > 0


def test_a_campaign_writes_down_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["crash_states", "--count", "1", "--subject", "queue", "--results", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", words)
    assert main() == 0
    assert '"queue states"' in (tmp_path / "found.json").read_text()
