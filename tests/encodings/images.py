"""Images written byte by byte, in any layout that an encoding must give back."""

import struct
from dataclasses import dataclass

import numpy as np

from tests.dicom.build import EXPLICIT, IMPLICIT, even, file, uid
from tests.dicom.build import element as explicit
from tests.dicom.build import implicit as implicit_element

CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class Image:
    rows: int = 16
    columns: int = 20
    samples: int = 1
    frames: int = 1
    bits: int = 16
    stored: int = 12
    signed: bool = False
    planar: bool = False
    implicit: bool = False
    smooth: bool = True
    stray: bool = False  # bits above Bits Stored that say nothing
    padding: bytes = b""  # inside the pixel data, behind the last frame
    behind: bytes = b""  # elements and zeros behind the pixel data
    seed: int = 1
    modality: str = "CT"

    @property
    def pixels(self) -> bytes:
        random = np.random.default_rng(self.seed)
        shape = (self.frames * self.rows, self.columns * self.samples)
        if self.smooth:
            steps = random.integers(-3, 4, shape)
            values = steps.cumsum(axis=0) + (1 << self.stored) // 2
        else:
            values = random.integers(0, 1 << self.stored, shape)
        if self.signed:
            values = values - (1 << self.stored) // 2
        mask = (1 << self.bits) - 1 if self.signed or self.stray else (1 << self.stored) - 1
        if self.stray:
            values = values | random.integers(0, 1 << self.bits, shape) << self.stored
        return (values & mask).astype(f"<u{self.bits // 8}").tobytes()

    def encode(self) -> bytes:
        """Return the whole file."""
        value = self.pixels + self.padding
        value += bytes(len(value) % 2)
        elements = [
            (0x00080016, "UI", uid(CT)),
            (0x00080018, "UI", uid("1.2.3")),
            (0x00080060, "CS", even(self.modality)),
            (0x0020000D, "UI", uid("1.2.3.1")),
            (0x0020000E, "UI", uid("1.2.3.1.1")),
            (0x00280002, "US", struct.pack("<H", self.samples)),
            (0x00280004, "CS", even("RGB" if self.samples == 3 else "MONOCHROME2")),
            *([(0x00280006, "US", struct.pack("<H", int(self.planar)))] if self.samples > 1 else []),
            *([(0x00280008, "IS", even(str(self.frames)))] if self.frames > 1 else []),
            (0x00280010, "US", struct.pack("<H", self.rows)),
            (0x00280011, "US", struct.pack("<H", self.columns)),
            (0x00280100, "US", struct.pack("<H", self.bits)),
            (0x00280101, "US", struct.pack("<H", self.stored)),
            (0x00280102, "US", struct.pack("<H", self.stored - 1)),
            (0x00280103, "US", struct.pack("<H", int(self.signed))),
            (0x7FE00010, "OB" if self.bits == 8 else "OW", value),
        ]
        if self.implicit:
            body = b"".join(implicit_element(tag, value) for tag, _, value in elements)
        else:
            body = b"".join(explicit(*each) for each in elements)
        return file(body + self.behind, IMPLICIT if self.implicit else EXPLICIT)
