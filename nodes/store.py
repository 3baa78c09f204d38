"""A node's objects: plain files under objects/ab/cd/<object id>, each made durable before it is answered for.

| folder or file | what |
|---|---|
| `objects/ab/cd/` | the objects whose ids begin with ab, cd (`nodes.objectfile`) |
| `incoming/` | temporary files, cleared at start; `<object id>.partial` of resumable uploads, a week if there is room |
| `quarantine/` | what was found damaged, as `<object id>.<number>` |
| `trash/` | what the gateway had put aside (`nodes.trash`) |
| `incarnation` | the id of this life of the disk |
| `lock` | held while a node has the folder |

Everything blocks unless it says otherwise; methods may be called from any thread. Refuses to do: deleting objects
(`nodes.trash` does, after a delay), decoding for readers, deciding who may ask.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Self

import msgspec

from nodes.census import Census
from nodes.incoming import Incoming
from nodes.objectfile import HEADER_BYTES, RAW, Record
from nodes.opening import (
    clear_incoming,
    drop_oldest_partial,
    free_name,
    is_taken_back,
    lock_folder,
    object_path,
    read_incarnation,
)
from nodes.reading import StoredReader, read_header
from nodes.room import Room
from transfer import disk
from transfer.durable import Finished, Group, Volume, make_folder_durably
from transfer.encodings import OpenDecoder, open_decoder_here
from transfer.errors import (
    BusyError,
    ConflictError,
    CorruptError,
    FascicleError,
    FullError,
    NotStoredError,
    ProtocolError,
)
from transfer.log import get_logger
from transfer.objects import is_object_id

log = get_logger()
Ready = Mapping[int, tuple[Finished, Record, bool]]  # the last: a copy is here, and every byte of it was read


class Statistics(msgspec.Struct, frozen=True):
    """What a store holds, and how many files lie in quarantine. `counted`: the counts no longer grow after a start."""

    objects: int
    stored_bytes: int
    free_bytes: int
    counted: bool
    quarantined: int


class Store:
    """The objects of one folder; made by `Store.open`."""

    def __init__(
        self,
        folder: Path,
        reserve_bytes: int,
        lock_descriptor: int,
        incarnation: str,
        open_decoder: OpenDecoder = open_decoder_here,
    ) -> None:
        self.folder = folder
        self._open_decoder = open_decoder
        self.incarnation = incarnation
        self._lock_descriptor = lock_descriptor
        self._volume = Volume(folder)
        self._room = Room(str(folder), reserve_bytes)
        self._census = Census(str(folder / "objects"), len(disk.entries(str(folder / "quarantine"))))
        self._serial = itertools.count()
        self._lock = Lock()  # of the three below
        self._partials: set[str] = set()  # ids with a writer
        self._unsettled: set[str] = set()  # ids whose names may be visible before they are durable
        self._failed_groups = 0

    @classmethod
    def open(cls, folder: Path, reserve_bytes: int, open_decoder: OpenDecoder = open_decoder_here) -> Self:
        """Open the store in `folder`, made when it is not there, and recover from whatever ended its last use.

        `open_decoder` gives the decoders that check what comes in.

        Raises:
            SettingsError: another process has it open.
            StorageError, FullError: the disk failed or is full.
        """
        folder = folder.absolute()
        for name in ("objects", "incoming", "quarantine", "trash"):
            make_folder_durably(folder / name)
        descriptor = lock_folder(folder)
        try:
            clear_incoming(folder)
            Volume(folder).flush_everything()
            return cls(folder, reserve_bytes, descriptor, read_incarnation(folder / "incarnation"), open_decoder)
        except BaseException:
            disk.close(descriptor)
            raise

    def close(self) -> None:
        """Let go of the folder."""
        self._census.close()
        disk.close(self._lock_descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def contains(self, object_id: str) -> Record | None:
        """Return what is durable under this id by its header; a file with a damaged header is quarantined: None."""
        if not self._is_here(object_id):
            return None
        try:
            return self.check_durable(object_id, deep=False)
        except (NotStoredError, CorruptError):
            return None

    def begin(self, object_id: str, size_bytes: int, encoding: str, *, resumable: bool = False) -> Incoming:
        """Start to take one object; without `resumable` this does not block while there is room.

        A resumable upload goes on after `Incoming.offset_bytes`, what is there being checked again.

        Raises:
            FullError: no room for it.
            BusyError: another flow is sending the same object resumably.
            ProtocolError: not an object id.
            SettingsError: an encoding that is not known.
        """
        if not is_object_id(object_id) or size_bytes < 0:
            raise ProtocolError("an object's id is 64 lower-case hex digits, and its size not negative")
        if resumable:
            return self._begin_resumable(object_id, size_bytes, encoding)
        return self._begin_new(object_id, size_bytes, encoding)

    def begin_unnamed(self, size_bytes: int) -> Incoming:
        """Start to take a raw object whose id its bytes will give (`Incoming.object_id` when committed); as `begin`."""
        return self._begin_new("", size_bytes, RAW)

    def _begin_new(self, object_id: str, size_bytes: int, encoding: str) -> Incoming:
        path = f"{self.folder}/incoming/{next(self._serial)}.new"
        return self._incoming(object_id, size_bytes, encoding, path, lambda: None)

    def _incoming(
        self, object_id: str, size_bytes: int, encoding: str, path: str, on_end: Callable[[], None]
    ) -> Incoming:
        """Make an upload; where there is no room for it, partial uploads that nobody is sending make way."""
        while True:
            try:
                return Incoming(
                    object_id,
                    size_bytes,
                    encoding,
                    path=path,
                    room=self._room,
                    on_end=on_end,
                    open_decoder=self._open_decoder,
                )
            except FullError:
                with self._lock:
                    if not drop_oldest_partial(self.folder, self._partials):
                        raise

    def _begin_resumable(self, object_id: str, size_bytes: int, encoding: str) -> Incoming:
        with self._lock:
            if object_id in self._partials:
                raise BusyError(f"{object_id} is being sent by another flow; ask again when that has ended")
            self._partials.add(object_id)
        leave = partial(self._partials.discard, object_id)
        path = f"{self.folder}/incoming/{object_id}.partial"
        try:
            incoming = self._incoming(object_id, size_bytes, encoding, path, leave)
        except BaseException:
            leave()
            raise
        try:
            incoming.open_partial()
        except BaseException:
            incoming.end()
            raise
        return incoming

    def commit(self, group: Sequence[Incoming]) -> list[Record | FascicleError]:
        """Check each upload, make all good ones durable together, and return what became of each, in their order.

        An object that was here already keeps its old copy, which is read again and whose record is returned. An error
        stands for its own upload: CorruptError (not the object, or the old copy was damaged and is set aside: send it
        again), FullError, StorageError (a failed flush fails the whole group). All uploads are ended, and those that
        failed are removed.
        """
        outcomes: dict[int, Record | FascicleError] = {}
        try:
            with self._volume.open_group() as flush:
                outcomes |= self._publish(flush, self._finish(group, outcomes))
        except FascicleError as error:
            outcomes = {index: outcomes.get(index, error) for index in range(len(group))}
        return [_end(incoming, outcomes[index]) for index, incoming in enumerate(group)]

    def _finish(self, group: Sequence[Incoming], failed: dict[int, Record | FascicleError]) -> Ready:
        ready = {}
        for index, incoming in enumerate(group):
            try:
                if incoming.ended:
                    raise ConflictError(f"{incoming.object_id}: its upload has ended")
                finished = incoming.finish(partial(object_path, self.folder))
                ready[index] = (*finished, self._is_sound(incoming.object_id))
            except FascicleError as error:
                failed[index] = error
        return ready

    def _is_sound(self, object_id: str) -> bool:
        """Tell whether a copy is here; a damaged one makes way."""
        if self._is_here(object_id):
            with contextlib.suppress(NotStoredError, CorruptError):  # gone or damaged: then it is not here
                self.check(object_id, deep=True)
                return True
        return False

    def _is_here(self, object_id: str) -> bool:
        """Tell whether a file has this name: mostly none has, and an error that is raised and caught is dear."""
        return disk.exists(self._path(object_id))

    def _publish(self, flush: Group, ready: Ready) -> dict[int, Record | FascicleError]:
        if not ready:
            return {}
        with self._volume.publishing:
            new = self._announce(record.object_id for _, record, _ in ready.values())
            try:
                fresh = flush.publish([file for file, _, _ in ready.values()])
            except FascicleError as error:
                self._settle({each for each in sorted(new) if is_taken_back(self.folder, each)}, failed=True)
                return dict.fromkeys(ready, error)
            self._settle(new)
        each = zip(ready.items(), fresh, strict=True)
        return {index: self._outcome(record, sound, is_new) for (index, (_, record, sound)), is_new in each}

    def _announce(self, object_ids: Iterable[str]) -> set[str]:
        """Return which of the ids have no sound file yet, noted as such: their names appear soon."""
        new = {object_id for object_id in object_ids if self.contains(object_id) is None}
        with self._lock:
            self._unsettled |= new
        for object_id in new:
            self._census.announce(object_id)
        return new

    def _settle(self, object_ids: set[str], *, failed: bool = False) -> None:
        with self._lock:
            self._unsettled -= object_ids
            self._failed_groups += failed

    def _outcome(self, record: Record, sound: bool, is_new: bool) -> Record | FascicleError:
        if is_new:
            self._census.add(record.object_id, record.stored_bytes)
            return record
        try:
            # The bytes that came are let go: those here must be good. What was read just now is this copy.
            return self.check(record.object_id, deep=not sound)
        except NotStoredError:
            return CorruptError(f"{record.object_id}: the copy here was damaged, and is set aside; send it again")
        except FascicleError as error:
            return error

    def read(self, object_id: str, *, from_disk: bool = False) -> StoredReader:
        """Open an object to read its stored bytes, checked (`StoredReader`); a damaged one is quarantined.

        Raises:
            NotStoredError: not here.
            CorruptError: damaged.
            StorageError: the disk failed.
        """
        on_corrupt = partial(self._quarantine, object_id)
        return StoredReader(self._open(object_id), object_id, on_corrupt, from_disk=from_disk)

    def check(self, object_id: str, *, deep: bool) -> Record:
        """Return an object's record if its header and length, or `deep` every byte, are right; errors as `read`."""
        if deep:
            return self._check_bytes(object_id)
        descriptor = self._open(object_id)
        try:
            return read_header(descriptor, object_id).record
        except CorruptError:
            self._quarantine(object_id, descriptor)
            raise
        finally:
            disk.close(descriptor)

    def _check_bytes(self, object_id: str, *, from_disk: bool = False) -> Record:
        with self.read(object_id, from_disk=from_disk) as reader:
            for _ in reader:
                pass
            return reader.record

    def check_durable(self, object_id: str, *, deep: bool) -> Record:
        """As `check`; an object whose name is visible and not durable yet is not here: its receipt could prove false.

        `deep` asks the disk itself: other copies are let go on this answer, and memory says nothing of a disk.

        Raises:
            FascicleError: as `read`.
        """
        while True:
            failed_groups = self._failed_groups
            record = self._check_bytes(object_id, from_disk=True) if deep else self.check(object_id, deep=False)
            with self._lock:
                if object_id in self._unsettled:
                    raise NotStoredError(f"{object_id} is not durable here yet")
                if failed_groups == self._failed_groups:  # else the file may have been one of theirs: look again
                    return record

    def _open(self, object_id: str) -> int:
        return disk.open_to_read(self._path(object_id))

    def _path(self, object_id: str) -> str:
        if not is_object_id(object_id):
            raise ProtocolError("an object's id is 64 lower-case hex digits")
        return object_path(self.folder, object_id)

    def _quarantine(self, object_id: str, descriptor: int) -> None:
        """Set a damaged file aside, unless another copy has taken its place by now."""
        path = object_path(self.folder, object_id)
        with self._volume.publishing:
            if not disk.is_open_as(descriptor, path):
                return
            target = free_name(f"{self.folder}/quarantine", object_id)
            self._volume.move(path, target)
            self._census.remove(object_id, max(0, disk.size_of(descriptor) - HEADER_BYTES))
        log.error("object_quarantined", object_id=object_id)

    def set_aside(self, object_id: str, target: str) -> None:
        """Move an object whose header is right to `target`, a free name in this folder; durable on return.

        Raises:
            FascicleError: as `check`; after StorageError of the move it may be in either place.
        """
        with self._volume.publishing:
            record = self.check(object_id, deep=False)
            self._volume.move(object_path(self.folder, object_id), target)
            self._census.remove(object_id, record.stored_bytes, quarantined=False)

    def take_back(self, object_id: str, source: str) -> Record:
        """Put an object that lies at `source` in its place, after every byte of it was read; durable on return.

        Where a sound one is in its place already, `source` stays where it is.

        Raises:
            FascicleError: as `read`; nothing has changed, but after StorageError of the move.
        """
        with StoredReader(disk.open_to_read(source), object_id, lambda _: None, from_disk=True) as reader:
            for _ in reader:
                pass
        with self._volume.publishing:
            new = self._announce([object_id])
            if not new:
                return self.check(object_id, deep=True)
            try:
                self._volume.move(source, object_path(self.folder, object_id))
            except FascicleError:
                self._settle(new if is_taken_back(self.folder, object_id) else set(), failed=True)
                raise
            self._settle(new)
            self._census.add(object_id, reader.record.stored_bytes)
        return reader.record

    def statistics(self) -> Statistics:
        """Return the counts and the room that is left above the reserve; does not block."""
        census = self._census
        free_bytes = self._room.free_bytes()
        return Statistics(census.objects, census.stored_bytes, free_bytes, census.complete, census.quarantined)

    def wait_counted(self, timeout_s: float | None = None) -> bool:
        """Wait until the counts are complete; tells whether they are."""
        return self._census.wait(timeout_s)


def _end(incoming: Incoming, outcome: Record | FascicleError) -> Record | FascicleError:
    if isinstance(outcome, Record):
        incoming.end()
        return outcome
    incoming.resumable = False
    try:
        incoming.abandon()
    except FascicleError as error:
        outcome.add_note(f"and not removed: {error.message}")
    return outcome
