"""Makes CT series: the same bytes for the same seed, fast enough to make 360 x 801 KiB in about a second.

A series is a phantom (soft tissue with two rods that turn by a degree an image, the paper's workload) under noise, 16
bits a pixel. The header is written once with pydicom; for each image only its UID, number and pixels are put in.
Refuses to do: anything that looks like a patient.

    python -m bench.generate OUT [--images 360] [--rows 640] [--columns 640] [--seed 1]
"""

import argparse
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MultiFrameGrayscaleWordSecondaryCaptureImageStorage

AIR, TISSUE, ROD, NOISE = 124, 1064, 1900, 12
SHIFTS, STRIDE = 4096, 1021  # how far the noise plane moves in all, and from image to image (coprime: no repeats)


def uid(*words: object) -> UID:
    """Return a UID made from `words` (PS3.5 B.2), always 43 characters long."""
    number = int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:16])
    return UID(f"2.25.{10**37 + number % (9 * 10**37)}")


def ct_series(images: int, *, seed: int, rows: int = 640, columns: int = 640, study: object = None) -> Iterator[bytes]:
    """Yield `images` whole DICOM files of one series; `study` puts several series into one study."""
    head = _header(CTImageStorage, rows=rows, columns=columns, seed=seed, study=seed if study is None else study)
    noise = np.random.default_rng(seed).normal(0, NOISE, rows * columns + SHIFTS).astype(np.int16)
    grid = _grid(rows, columns)
    for index in range(images):
        offset = index * STRIDE % SHIFTS
        pixels = _phantom(grid, index) + noise[offset : offset + rows * columns].reshape(rows, columns)
        yield _numbered(head, seed, index) + _pixel_element(pixels.nbytes) + pixels.astype("<u2").tobytes()


def write_series(folder: Path, images: int, **how: int) -> list[Path]:
    """Write `ct_series` as image-0000.dcm and so on; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, data in enumerate(ct_series(images, **how)):
        paths.append(folder / f"image-{index:04}.dcm")
        paths[-1].write_bytes(data)
    return paths


def write_multiframe(path: Path, size_bytes: int, *, seed: int, rows: int = 640, columns: int = 640) -> None:
    """Write one multi-frame object of about `size_bytes` (below 4 GiB), a frame at a time."""
    frame_bytes = rows * columns * 2
    frames = size_bytes // frame_bytes
    kind = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    head = _header(kind, rows=rows, columns=columns, seed=seed, study=seed, frames=frames)
    random = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(_numbered(head, seed, 0) + _pixel_element(frames * frame_bytes))
        for _ in range(frames):
            file.write(random.bytes(frame_bytes))


def _header(kind: str, *, rows: int, columns: int, seed: int, study: object, frames: int = 0) -> bytes:
    """Return everything before the pixel data, with the first image's UID and number 0 in it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(kind)
    meta.MediaStorageSOPInstanceUID = uid(seed, 0)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    _describe(dataset, kind, seed, study)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    if frames:
        dataset.NumberOfFrames = frames
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _describe(dataset: Dataset, kind: str, seed: int, study: object) -> None:
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, uid(seed, 0)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study", study), uid("series", seed)
    dataset.StudyDate, dataset.StudyTime, dataset.Modality = "20120401", "120000", "CT"
    dataset.PatientName, dataset.PatientID = "Phantom^Generated", "PHANTOM-1"
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.AccessionNumber, dataset.StudyID = "", "1"
    dataset.StudyDescription, dataset.SeriesDescription = "Generated CT", "One image a degree"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, "0" * 12
    dataset.Manufacturer = "Fascicle generator"


def _numbered(head: bytes, seed: int, index: int) -> bytes:
    return head.replace(uid(seed, 0).encode(), uid(seed, index).encode()).replace(b"0" * 12, f"{index:012}".encode())


def _pixel_element(length_bytes: int) -> bytes:
    """Return the explicit VR element header of Pixel Data (PS3.5 7.1.2)."""
    return b"\xe0\x7f\x10\x00OW\x00\x00" + length_bytes.to_bytes(4, "little")


def _grid(rows: int, columns: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    x, y = np.meshgrid(np.linspace(-1, 1, columns, dtype=np.float32), np.linspace(-1, 1, rows, dtype=np.float32))
    return x, y


def _phantom(grid: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], index: int) -> npt.NDArray[np.int16]:
    x, y = grid
    image = np.where(x * x / 0.7 + y * y / 0.5 < 1, np.int16(TISSUE), np.int16(AIR))
    for side in (0, np.pi):
        angle = np.radians(index, dtype=np.float32) + np.float32(side)
        image[(x - 0.4 * np.cos(angle)) ** 2 + (y - 0.4 * np.sin(angle)) ** 2 < 0.01] = ROD
    return image


def main() -> None:
    """Write a series from the command line."""
    parser = argparse.ArgumentParser(description="Write a generated CT series.")
    parser.add_argument("out", type=Path)
    for name, default in (("images", 360), ("rows", 640), ("columns", 640), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    paths = write_series(given.out, given.images, rows=given.rows, columns=given.columns, seed=given.seed)
    print(f"{len(paths)} images, {sum(path.stat().st_size for path in paths)} bytes in {given.out}")


if __name__ == "__main__":
    main()
