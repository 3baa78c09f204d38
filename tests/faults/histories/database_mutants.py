"""Mistakes put into what the gateway and the agent do with SQLite; a power cut at some moment must show each.

As `mutants`, which are of files. Refuses to do: being found by chance; each names the database that must show it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import agent.database
import agent.queue
import gateway.database
import gateway.replacement
from gateway.database import Database
from tests.faults.histories.crash_states import try_subject
from tests.faults.histories.databases import SUBJECTS
from tests.faults.histories.mutants import Replaced, applied
from tests.faults.histories.world import Violation
from transfer import disk

_of_gateway, _of_agent = gateway.database._pragmas, agent.database._pragmas


def _with(pragmas: Callable[..., list[str]], before: str, after: str) -> Callable[..., list[str]]:
    def changed(**which: bool) -> list[str]:
        found = pragmas(**which)
        assert before in found or which.get("read_only"), "the mistake does not fit the code any more"
        return [after if each == before else each for each in found]

    return changed


def _answer_first(database: Database, group: list[Any]) -> None:
    """Run the units, answer, and only then commit."""
    connection = database._writer.connect()
    with connection.begin():
        answers = [(done, *gateway.database._attempt(connection, unit)) for unit, done in group]
        for done, value, _ in answers:
            done.set_running_or_notify_cancel()
            done.set_result(value)
        disk.exists(gateway.database.__file__)  # the commit takes its time


@contextmanager
def _no_transaction(_: Any) -> Iterator[None]:
    yield


def _nothing(*_: object, **__: object) -> None:
    """Do nothing."""


NORMAL, OFF, FULL = "synchronous = NORMAL", "synchronous = OFF", "synchronous = FULL"
WAL, NO_JOURNAL = "journal_mode = WAL", "journal_mode = OFF"
DATABASE_MUTANTS: Final[dict[str, tuple[str, list[Replaced]]]] = {
    "the catalogue's log is not flushed": (
        "catalogue",
        [(gateway.database, "_pragmas", _with(_of_gateway, FULL, NORMAL))],
    ),
    "the catalogue is never flushed": ("catalogue", [(gateway.database, "_pragmas", _with(_of_gateway, FULL, OFF))]),
    "the catalogue has no journal": (
        "catalogue",
        [(gateway.database, "_pragmas", _with(_of_gateway, WAL, NO_JOURNAL))],
    ),
    "the catalogue's folder is not flushed": (
        "catalogue",
        [(gateway.database, "make_folder_durably", lambda path: disk.make_folders(str(path)))],
    ),
    "answered before the commit": ("catalogue", [(Database, "_run_group", _answer_first)]),
    "the queue's log is not flushed": ("queue", [(agent.database, "_pragmas", _with(_of_agent, FULL, NORMAL))]),
    "the queue's steps are no transactions": ("queue", [(agent.queue, "transaction", _no_transaction)]),
    "a rebuild leaves no mark": ("rebuild", [(gateway.replacement, "write_file_durably", _nothing)]),
    "a rebuild's names are not flushed": ("rebuild", [(disk, "flush_folder", _nothing)]),
}
SEEDS: Final = 60
PARTS: Final = {"rebuild": slice(-14, None)}  # where the new catalogue takes its place


def first_that_notices(name: str) -> Violation | None:
    """Return how the mistake shows; None when it does not."""
    subject, replaced = DATABASE_MUTANTS[name]
    with applied(replaced):
        try:
            try_subject(SUBJECTS[subject], range(SEEDS), part=PARTS.get(subject, slice(None)))
        except Violation as error:
            return error
    return None
