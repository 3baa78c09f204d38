"""Mistakes put into what the gateway and the agent do with SQLite; a power cut at some moment must show each.

As `mutants`, which are of files. Refuses to do: being found by chance; each names the database that must show it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import agent.database
import agent.queue
import gateway.database
import gateway.replacement
from gateway.database import Database
from tests.faults.histories.crash_states import ERRORS, try_subject
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
        time.sleep(0.005)  # in which whoever asked hears it, in a thread of its own
        disk.exists(gateway.database.__file__)  # the commit takes its time


@contextmanager
def _no_transaction(_: Any) -> Iterator[None]:
    yield


def _nothing(*_: object, **__: object) -> None:
    """Do nothing."""


class Mistake(NamedTuple):
    """What is replaced, and where it must show: by power cuts, or by `errors`, at these moments."""

    subject: str
    replaced: list[Replaced]
    part: slice = slice(None)
    errors: Sequence[int] = ()


def _catalogue(before: str, after: str) -> Mistake:
    return Mistake("catalogue", [(gateway.database, "_pragmas", _with(_of_gateway, before, after))])


def _without_log(subject: str, module: Any) -> Mistake:
    return Mistake(subject, [(module, "_require_log", _nothing)], slice(0, 20), ERRORS)


FULL: Final = "synchronous = FULL"
TAKING_PLACE: Final = slice(-14, None)  # of a rebuild
DATABASE_MUTANTS: Final = {
    "the catalogue's log is not flushed": _catalogue(FULL, "synchronous = NORMAL"),
    "the catalogue is never flushed": _catalogue(FULL, "synchronous = OFF"),
    "the catalogue has no journal": _catalogue("journal_mode = WAL", "journal_mode = OFF"),
    "the catalogue's folder is not flushed": Mistake(
        "catalogue", [(gateway.database, "make_folder_durably", lambda path: disk.make_folders(str(path)))]
    ),
    "answered before the commit": Mistake("catalogue", [(Database, "_run_group", _answer_first)]),
    "nobody asks whether the catalogue has its log": _without_log("catalogue", gateway.database),
    "nobody asks whether the queue has its log": _without_log("queue", agent.database),
    "the queue's log is not flushed": Mistake(
        "queue", [(agent.database, "_pragmas", _with(_of_agent, FULL, "synchronous = NORMAL"))]
    ),
    "the queue's steps are no transactions": Mistake("queue", [(agent.queue, "transaction", _no_transaction)]),
    "a rebuild leaves no mark": Mistake(
        "rebuild", [(gateway.replacement, "write_file_durably", _nothing)], TAKING_PLACE
    ),
    "a rebuild's names are not flushed": Mistake("rebuild", [(disk, "flush_folder", _nothing)], TAKING_PLACE),
}
SEEDS: Final = range(60)


def first_that_notices(name: str) -> Violation | None:
    """Return how the mistake shows; None when it does not."""
    mistake = DATABASE_MUTANTS[name]
    seeds = range(0) if mistake.errors else SEEDS  # what only an error brings about needs no power cut
    with applied(mistake.replaced):
        try:
            try_subject(SUBJECTS[mistake.subject], seeds, errors=mistake.errors, part=mistake.part)
        except Violation as error:
            return error
    return None
