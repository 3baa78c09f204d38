"""What is sent: generated images as the paper's (S2), small ones, or real files, new to every store in each run.

Real files are copied with new SOP, Series and Study Instance UIDs of the same length, put in at byte level, so that
every copy is a valid file of its own and nothing is left out because it is stored already. Refuses to do: changing
anything else in a file.
"""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from transfer.errors import SettingsError

PAPER: Final = "paper"
PAPER_OBJECTS, PAPER_SIDE = 360, 640
SMALL: Final = "small"
SMALL_OBJECTS, SMALL_SIDE = 2000, 68  # 10 KB each
UID_TAGS: Final = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
UID_BYTES_MIN: Final = 16  # a shorter one could stand elsewhere by chance
DEFLATED: Final = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True)
class Source:
    """A real file, and the UIDs in it that each copy has anew."""

    path: Path
    uids: tuple[bytes, ...]


@dataclass(frozen=True)
class Workload:
    """What to send: copies of `sources`, as many as `at_least_bytes` need, or so many generated images."""

    name: str
    sources: tuple[Source, ...] = ()
    at_least_bytes: int = 0
    generated: int = PAPER_OBJECTS
    side: int = PAPER_SIDE  # rows, and columns

    def write(self, folder: Path, *, objects: int, seed: int) -> list[Path]:
        """Write one run's files into the new folder `folder`, and return their paths; `objects` 0: as many as it has.

        Raises:
            SettingsError: the generated images need packages that are not installed.
        """
        folder.mkdir(parents=True)
        if self.sources:
            return self._copy(folder, objects, seed)
        try:
            from experiments.generate import write_series  # noqa: PLC0415  # numpy, for this workload only
        except ImportError as error:
            raise SettingsError(f"{self.name!r} needs {error.name}: pip install fascicle[experiments]") from error
        return write_series(folder, objects or self.generated, seed=seed, rows=self.side, columns=self.side)

    def _copy(self, folder: Path, objects: int, seed: int) -> list[Path]:
        paths: list[Path] = []
        size = 0
        for round_, source in self._rounds():
            if len(paths) >= objects if objects else round_ and size >= self.at_least_bytes:
                break
            data = renewed(source.path.read_bytes(), source.uids, f"{seed}/{round_}")
            paths.append(folder / f"image-{len(paths):05}.dcm")
            paths[-1].write_bytes(data)
            size += len(data)
        return paths

    def _rounds(self) -> Iterator[tuple[int, Source]]:
        round_ = 0
        while True:
            yield from ((round_, source) for source in self.sources)
            round_ += 1


GENERATED: Final = {
    PAPER: Workload(PAPER),
    SMALL: Workload(SMALL, generated=SMALL_OBJECTS, side=SMALL_SIDE),
}


def choose(text: str, at_least_mb: int) -> Workload:
    """Return the workload `paper` or `small`, or that of the DICOM files below the folder `text`.

    Raises:
        SettingsError: no such folder, or no usable DICOM file in it.
    """
    if text in GENERATED:
        return GENERATED[text]
    folder = Path(text)
    try:
        if not folder.is_dir():
            raise SettingsError(f"--workload {text[:200]!r} is neither {PAPER!r} nor {SMALL!r} nor a folder")
        found = [inspect(path) for path in sorted(folder.rglob("*")) if path.is_file()]
    except OSError as error:
        raise SettingsError(f"--workload {text[:200]!r} cannot be read: {error.strerror}") from error
    except ImportError as error:
        raise SettingsError(
            f"--workload {text[:200]!r} needs {error.name}: pip install fascicle[experiments]"
        ) from error
    sources = tuple(source for source in found if source is not None)
    if not sources:
        raise SettingsError(f"--workload {text!r}: no DICOM file with UIDs that can be made new is in it")
    return Workload(folder.name, sources, at_least_mb * 1_000_000)


def inspect(path: Path) -> Source | None:
    """Return a file with the UIDs to make new; None when it is not DICOM, or they cannot be replaced in place."""
    from pydicom import dcmread  # noqa: PLC0415  # slow to import, needed for real files only
    from pydicom.errors import InvalidDicomError  # noqa: PLC0415  # as above

    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return None
        file.seek(0)
        try:
            found = dcmread(file, stop_before_pixels=True, specific_tags=list(UID_TAGS))
        except (InvalidDicomError, EOFError, ValueError, zlib.error):
            return None
    uids = tuple(str(found.get(tag, "")).encode() for tag in UID_TAGS)
    if found.file_meta.get("TransferSyntaxUID") == DEFLATED or min(map(len, uids)) < UID_BYTES_MIN:
        return None
    return Source(path, uids)


def renewed(data: bytes, uids: tuple[bytes, ...], word: str) -> bytes:
    """Return `data` with each of `uids` replaced by another of the same length that follows from it and `word`."""
    for old in dict.fromkeys(uids):
        data = data.replace(old, new_uid(old, word))
    return data


def new_uid(old: bytes, word: str) -> bytes:
    """Return a UID below 2.25 (PS3.5 B.2), as long as `old`."""
    digits = str(int.from_bytes(hashlib.sha512(word.encode() + b"/" + old).digest()))
    return b"2.25.1" + digits[: len(old) - 6].encode()
