"""Mistakes put into the production code on purpose; histories that do not notice one are not good enough.

Each is a few attributes replaced, in memory, while histories run: `applied`. `first_seed_that_notices` says how many
it took. A mutant that no longer fits the code fails to apply, which is an error and not a success.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final

import nodes.store
from agent.spool import Spool
from nodes.digests import Digests
from nodes.incoming import Incoming
from nodes.reading import StoredReader
from nodes.store import Store
from tests.faults.histories.campaign import run_history
from tests.faults.histories.strands import Strands
from tests.faults.histories.world import Violation
from transfer import disk, durable
from transfer.durable import Finished, Group, Volume
from transfer.errors import FascicleError, FullError
from transfer.objects import Identity

Replaced = tuple[Any, str, Any]
_write_at, _flush_data, _flush_whole = disk.write_at, disk.flush_data, disk.flush_file_system
_flush_folder = disk.flush_folder
_check, _prepare = Store.check, Spool._prepare


def _nothing(*_: object, **__: object) -> None:
    """Do nothing."""


def _only_the_folder(_: Volume, finals: Iterable[str]) -> set[str]:
    return {os.path.dirname(final) for final in finals}


def _flush_the_last_group(group: Group, files: Sequence[Finished]) -> list[bool]:
    """Flush what was answered already, then rename and answer."""
    disk.flush_file_system(group.descriptor)
    return [group._rename(file, []) for file in files]


def _rename_first(group: Group, files: Sequence[Finished]) -> list[bool]:
    with group._volume.publishing:
        renamed: list[str] = []
        try:
            fresh = [group._rename(file, renamed) for file in files]
            group._flush_data(files)
            group._flush_names(files)
        except FascicleError as error:
            durable._remove([*renamed, *(file.temporary for file in files)], error)
            raise
        return fresh


def _try_twice(call: Callable[[int], None]) -> Callable[[int], None]:
    def flush(descriptor: int) -> None:
        try:
            call(descriptor)
        except FascicleError:
            call(descriptor)

    return flush


def _ignoring(kind: type[FascicleError], call: Callable[..., Any], answer: Callable[..., Any]) -> Callable[..., Any]:
    def careless(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except kind:
            return answer(*arguments)

    return careless


def _behind(_: int, buffers: Sequence[Any], offset: int) -> int:
    return offset + sum(memoryview(buffer).nbytes for buffer in buffers)


def _flush_whole_only(group: Group, files: Sequence[Finished]) -> None:
    if len(files) > 1:
        disk.flush_file_system(group.descriptor)
    else:
        disk.flush_data(files[0].descriptor)


@disk._wrapped
def _write_once(descriptor: int, buffers: Sequence[Any], offset: int) -> int:
    return offset + disk.os.pwritev(descriptor, [memoryview(b"".join(buffers))], offset)


def _finish_unchecked(digests: Digests) -> bytes:
    return digests._stored.digest()


class _Trusting:
    """In place of `Digests`, for a partial file whose first bytes nobody looked at."""

    def __init__(self, object_id: str) -> None:
        self.object_id = object_id

    def feed(self, _: object) -> None:
        """Believe it."""

    def finish(self) -> bytes:
        return bytes.fromhex(self.object_id)

    def identity(self) -> Identity:
        return Identity(any_file=True)


def _trust(incoming: Any, descriptor: int) -> bool:
    length = disk.size_of(descriptor) - nodes.incoming.HEADER_BYTES
    if length > 0:
        incoming._digests = _Trusting(incoming.object_id)
    incoming.stored_bytes = incoming.offset_bytes = length
    incoming._note_written(length)
    return True


def _publish_without_names(spool: Spool, waiting: Sequence[Any]) -> None:
    with spool._volume.open_group() as group:
        group._flush_data([each.file for each in waiting])
        for each in waiting:
            group._rename(each.file, [])
            each.published = True


def _take_half_for_whole(spool: Spool) -> None:
    if disk.exists(str(spool.incoming)) and disk.exists(str(spool.ready)):
        for left in disk.entries(str(spool.incoming)):
            disk.rename(left.path, str(spool.ready / left.name))
    _prepare(spool)


def _check_header_only(store: Store, object_id: str, *, deep: bool) -> Any:
    return _check(store, object_id, deep=False)


def _contains_what_is_visible(store: Store, object_id: str) -> Any:
    with suppress(FascicleError):  # the mistake: damage is not told
        return store.check(object_id, deep=False)
    return None


MUTANTS: Final[dict[str, list[Replaced]]] = {
    "file data is not flushed": [(Group, "_flush_data", _nothing)],
    "names are not flushed": [(Group, "_flush_names", _nothing)],
    "only the last folder is flushed": [(Volume, "unsettled_folders", _only_the_folder)],
    "acknowledged before the flush": [(Group, "publish", _flush_the_last_group)],
    "renamed before the data is flushed": [(Group, "publish", _rename_first)],
    "a failed flush is tried again": [
        (disk, "flush_data", _try_twice(_flush_data)),
        (disk, "flush_file_system", _try_twice(_flush_whole)),
    ],
    "failures of flushes are ignored": [
        (disk, "flush_data", _ignoring(FascicleError, _flush_data, _nothing)),
        (disk, "flush_file_system", _ignoring(FascicleError, _flush_whole, _nothing)),
        (disk, "flush_folder", _ignoring(FascicleError, _flush_folder, _nothing)),
    ],
    "a full disk is ignored": [(disk, "write_at", _ignoring(FullError, _write_at, _behind))],
    "what was written early is not asked for failures": [(Group, "_flush_data", _flush_whole_only)],
    "what a failed group could not take back is answered for": [
        (durable, "_remove", _nothing),
        (nodes.store, "is_taken_back", lambda *_: True),
    ],
    "groups do not wait for each other": [(Strands, "lock_again", lambda _: nullcontext())],  # Volume.publishing
    "short writes are believed": [(disk, "write_at", _write_once)],
    "no checksum on read": [(StoredReader, "_judge", _nothing)],
    "wrong bytes are taken": [(Digests, "finish", _finish_unchecked)],
    "partial uploads are trusted unread": [(Incoming, "_reread", _trust)],
    "temporary files are not cleared": [(nodes.store, "clear_incoming", _nothing)],
    "nothing is flushed at start": [(Volume, "flush_everything", _nothing)],
    "a name that is visible counts as durable": [(Store, "contains", _contains_what_is_visible)],
    "an old copy is not read before it stands for a new one": [(Store, "check", _check_header_only)],
    "half received objects count as whole": [(Spool, "_prepare", _take_half_for_whole)],
    "the spool answers before its folder is flushed": [(Spool, "_publish_group", _publish_without_names)],
}


@contextmanager
def applied(replaced: Sequence[Replaced]) -> Iterator[None]:
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    try:
        for owner, name, value in replaced:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)


def first_seed_that_notices(name: str, seeds: Iterable[int]) -> tuple[int, Violation] | None:
    """Return the first seed whose history breaks a promise with this mutant, and how; None when none does."""
    with applied(MUTANTS[name]):
        for seed in seeds:
            try:
                run_history(seed)
            except Violation as error:
                return seed, error
    return None
