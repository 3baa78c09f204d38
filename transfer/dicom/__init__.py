"""DICOM data sets as bytes: who an object is, and whether all of it is there.

Pure functions over buffers, bounded in memory, depth and time. Refuses to do: pixel data, writing data sets, I/O.
"""

from transfer.dicom.identity import (
    DataSetCheck,
    IdentityReader,
    check_complete,
    read_identity,
    sop_class_of_complete,
)
from transfer.dicom.part10 import FileMeta, part10_header, read_file_meta

__all__ = [
    "DataSetCheck",
    "FileMeta",
    "IdentityReader",
    "check_complete",
    "part10_header",
    "read_file_meta",
    "read_identity",
    "sop_class_of_complete",
]
