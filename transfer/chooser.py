"""The encoding of each object: one by name, or the choice by measurement on the present link.

Refuses to do: the optimum (`transfer.choice`), encoding.
"""

import math
from threading import Lock
from typing import Final, NamedTuple, Protocol

from typing_extensions import Buffer

from transfer.choice import LADDER, RAW, Choice
from transfer.dicom import read_file_meta
from transfer.dicom.pixels import Kind, Pixels, locate_pixels
from transfer.encodings import IMAGE_ENCODINGS, get_encoding
from transfer.encodings.codecs import load_codec
from transfer.errors import NotDicomError, NotSuitableError, TruncatedError
from transfer.link import Link

AUTO: Final = "auto"
ZSTD: Final = "zstd"
LIKELY: Final = "gradient-pack"  # on a fast link; on a slow one nobody notices what the others still load
NO_DICOM: Final = "no DICOM"
# Not jxl-1: gradient-zstd is as dense, and nodes decode it more than twice as fast (docs/encodings.md).
CHOSEN: Final = tuple(name for name in LADDER if name != "jxl-1")
PATIENCE_S_MAX: Final = 1.0
PATIENCE_UNKNOWN_S: Final = 0.25  # one object sent as it is may hold a slow link for seconds


class Chosen(NamedTuple):
    """The kind of an object, the encoding for it, and where its pixel data lies if that was looked for and found."""

    kind: Kind | str
    name: str
    pixels: Pixels | None = None


class Chooser(Protocol):
    """Chooses; called from several threads at once, each call short."""

    encodes: bool  # whether anything may be encoded at all

    def prepare(self) -> None:
        """Load what encoding will need, if that is known."""

    def choose(self, head: Buffer) -> Chosen:
        """Return what is chosen now for the object that `head` is."""

    def choose_large(self, head: Buffer) -> Chosen:
        """Return what is chosen now for a large object that `head` begins, which one flow encodes as it sends."""

    def learn(
        self, kind: Kind | str, name: str, *, size_bytes: int, stored_bytes: int, processor_s: float, elapsed_s: float
    ) -> None:
        """Take in how an encoding did."""

    def set_aside(self, kind: Kind | str, name: str) -> None:
        """Note that an encoder gave up, was too slow, or gained nothing."""

    def seconds_max(self, kind: Kind | str, name: str, size_bytes: int) -> float:
        """Return after how long an encoder is too slow to go on."""

    def patience_s(self, size_bytes: int) -> float:
        """Return for how long an object is better waited for, until it is encoded, than sent as it is."""


def open_chooser(encoding: str, link: Link, *, workers: int) -> Chooser:
    """Return what chooses: `auto`, or always `encoding` where it is suitable.

    Raises:
        SettingsError: no such encoding.
    """
    if encoding == AUTO:
        return _Auto(link, workers)
    return _Fixed(get_encoding(encoding).name)


def preload(encoding: str) -> None:
    """Load what encoding will need, if that is known: a tenth of a second that is not to be a transfer's (blocks)."""
    open_chooser(encoding, Link(), workers=1).prepare()


def _look(head: Buffer) -> tuple[Kind | str, Pixels | None]:
    """Return what sort of object begins with `head`, and its pixel data if it can be encoded as an image."""
    try:
        pixels = locate_pixels(head)
    except (NotSuitableError, TruncatedError):
        return _syntax_of(head), None
    return pixels.kind, pixels


def _syntax_of(head: Buffer) -> str:
    with memoryview(head) as raw, raw.cast("B") as view:
        try:
            return read_file_meta(view).transfer_syntax_uid
        except (NotDicomError, TruncatedError):
            return NO_DICOM


class _Fixed:
    """One encoding; what is no image for one of images goes as zstd."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.encodes = name != RAW

    def prepare(self) -> None:
        if self._name in IMAGE_ENCODINGS:
            load_codec(self._name)

    def choose(self, head: Buffer) -> Chosen:
        if self._name not in IMAGE_ENCODINGS:
            return Chosen("", self._name)
        kind, pixels = _look(head)
        return Chosen(kind, self._name if pixels else ZSTD, pixels)

    def choose_large(self, head: Buffer) -> Chosen:
        return self.choose(head)

    def learn(
        self, kind: Kind | str, name: str, *, size_bytes: int, stored_bytes: int, processor_s: float, elapsed_s: float
    ) -> None:
        return

    def set_aside(self, kind: Kind | str, name: str) -> None:
        return

    def seconds_max(self, kind: Kind | str, name: str, size_bytes: int) -> float:
        return math.inf

    def patience_s(self, size_bytes: int) -> float:
        return math.inf if self.encodes else 0.0


class _Auto:
    """The choice by measurement."""

    encodes = True

    def __init__(self, link: Link, workers: int) -> None:
        self._link = link
        self._choice = Choice(workers, names=CHOSEN)
        self._lock = Lock()
        self._ratio = 1.0  # of the latest choice

    def prepare(self) -> None:
        load_codec(LIKELY)

    def choose(self, head: Buffer) -> Chosen:
        kind, pixels = _look(head)
        with self._lock:
            name = self._choice.choose(kind, self._link.bytes_s, is_idle=self._link.is_idle)
            self._ratio = self._choice.ratio(kind, name)
        return Chosen(kind, name, pixels)

    def choose_large(self, head: Buffer) -> Chosen:
        kind, pixels = _look(head)
        with self._lock:
            return Chosen(kind, self._choice.choose_alone(kind, self._link.bytes_s), pixels)

    def learn(
        self, kind: Kind | str, name: str, *, size_bytes: int, stored_bytes: int, processor_s: float, elapsed_s: float
    ) -> None:
        with self._lock:
            self._choice.note(kind, name, size_bytes, stored_bytes, processor_s)
            self._choice.note_share(processor_s, elapsed_s)

    def set_aside(self, kind: Kind | str, name: str) -> None:
        with self._lock:
            self._choice.set_aside(kind, name)

    def seconds_max(self, kind: Kind | str, name: str, size_bytes: int) -> float:
        with self._lock:
            return self._choice.seconds_max(kind, name, size_bytes)

    def patience_s(self, size_bytes: int) -> float:
        if not self._link.is_known:
            return PATIENCE_UNKNOWN_S
        saved_bytes = size_bytes * (1 - 1 / max(self._ratio, 1.0))
        return min(saved_bytes / self._link.bytes_s, PATIENCE_S_MAX)
