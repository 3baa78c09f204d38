"""The agent's settings: one TOML file, read once at start (examples/agent.toml says what each key means).

Refuses to do: opening anything that it names.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from agent.items import Priority
from agent.scp import ScpSettings
from transfer.control import timetable
from transfer.encodings import get_encoding
from transfer.errors import SettingsError
from transfer.settings import load

PriorityName = Literal["stat", "normal", "bulk"]
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
FolderName = Annotated[str, Meta(min_length=1)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class DestinationSettings(Section, frozen=True, kw_only=True):
    """`[[destination]]`: one gateway and what it is sent with.

    `replicas` 0: the cluster's default; `flows` 0: chosen while sending. `rate`: a timetable of the bandwidth that may
    be used (`transfer.control.timetable`). `workers` 0: an encoder for each processor, all of which give way.
    """

    name: Name
    credentials: FolderName
    replicas: Annotated[int, Meta(ge=0, le=16)] = 0
    encoding: str = "auto"
    flows: Annotated[int, Meta(ge=0, le=256)] = 0
    rate: Annotated[str, Meta(max_length=4096)] = "unlimited"
    workers: Annotated[int, Meta(ge=0, le=64)] = 0


class WatchSettings(Section, frozen=True, kw_only=True):
    """`[[watch]]`: one folder whose files are sent. `destinations` empty: all of them."""

    folder: FolderName
    destinations: list[Name] = []
    priority: PriorityName = "normal"
    settle_s: Annotated[float, Meta(ge=0.1, le=86_400)] = 2.0
    after: Literal["keep", "move", "delete"] = "keep"
    move_to: str = ""
    ignore: tuple[str, ...] = (".*", "*.part", "*.filepart", "*.tmp")


class SpoolSettings(Section, frozen=True, kw_only=True):
    """`[spool]`: where received objects wait, and for whom. `destinations` empty: all of them."""

    folder: FolderName = "spool"
    reserve_bytes: Annotated[int, Meta(ge=0)] = 1 << 30
    destinations: list[Name] = []
    priority: PriorityName = "normal"


class AgentSettings(Section, frozen=True, kw_only=True):
    """The whole file. Folders that are not absolute are below the file's own folder."""

    state: FolderName = "state"
    destination: list[DestinationSettings]
    watch: list[WatchSettings] = []
    scp: ScpSettings | None = None
    spool: SpoolSettings = SpoolSettings()


def load_settings(path: Path) -> AgentSettings:
    """Read the file, make every folder absolute, and check what one section says of another.

    Raises:
        SettingsError: names the key and what is wrong.
    """
    settings = _absolute(load(AgentSettings, path), path.resolve().parent)
    names = [destination.name for destination in settings.destination]
    if not names or len(set(names)) < len(names):
        raise SettingsError(f"{path}: give at least one [[destination]], each with a name of its own")
    for destination in settings.destination:
        _check_sending(path, destination)
    for section, wanted in [
        ("spool", settings.spool.destinations),
        *((w.folder, w.destinations) for w in settings.watch),
    ]:
        for name in wanted:
            if name not in names:
                raise SettingsError(
                    f"{path}: {section}: unknown destination `{name}`; known: {', '.join(sorted(names))}"
                )
    _check_folders(settings, path)
    return settings


def destinations_of(settings: AgentSettings, wanted: list[str]) -> list[str]:
    """Return the names that a section means."""
    return wanted or [destination.name for destination in settings.destination]


def priority_of(name: PriorityName) -> Priority:
    """Return the queue's form of a priority."""
    return Priority[name.upper()]


def _check_sending(path: Path, destination: DestinationSettings) -> None:
    try:
        timetable.parse(destination.rate)
        if destination.encoding != "auto":
            get_encoding(destination.encoding)
    except SettingsError as error:
        raise SettingsError(f"{path}: destination `{destination.name}`: {error.message}") from error


def _absolute(settings: AgentSettings, base: Path) -> AgentSettings:
    def absolute(folder: str) -> str:
        return str(base / Path(folder).expanduser()) if folder else ""

    replace = msgspec.structs.replace
    return replace(
        settings,
        state=absolute(settings.state),
        spool=replace(settings.spool, folder=absolute(settings.spool.folder)),
        destination=[replace(each, credentials=absolute(each.credentials)) for each in settings.destination],
        watch=[replace(w, folder=absolute(w.folder), move_to=absolute(w.move_to)) for w in settings.watch],
    )


def _check_folders(settings: AgentSettings, path: Path) -> None:
    """Refuse folders that would feed each other or that two watchers would fight over."""
    ours = [("state", settings.state), ("spool.folder", settings.spool.folder)]
    seen = list(ours)
    for watch in settings.watch:
        for key, other in seen:
            if _overlap(watch.folder, other):
                raise SettingsError(f"{path}: watch {watch.folder} and {key} {other} overlap; keep them apart")
        seen.append(("watch", watch.folder))
        if (watch.after == "move") != bool(watch.move_to):
            raise SettingsError(f'{path}: watch {watch.folder}: `after = "move"` and `move_to` go together')
    if _overlap(settings.state, settings.spool.folder):
        raise SettingsError(f"{path}: state and spool.folder overlap; keep them apart")
    for watch in settings.watch:
        for key, other in seen:
            if watch.move_to and _overlap(watch.move_to, other):
                raise SettingsError(f"{path}: move_to {watch.move_to} and {key} {other} overlap; keep them apart")


def _overlap(first: str, second: str) -> bool:
    one, two = Path(first).resolve(), Path(second).resolve()
    return one == two or one in two.parents or two in one.parents
