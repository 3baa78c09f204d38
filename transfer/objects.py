"""Objects: what names one, and what is known of one besides its bytes.

An object is the bytes of one DICOM file; its id is the BLAKE3-256 of those bytes as 64 lower-case hex digits.
On the wire ids are the 32 raw bytes.
"""

import re
from typing import Final

import msgspec
from blake3 import blake3
from typing_extensions import Buffer

OBJECT_ID: Final = re.compile(r"[0-9a-f]{64}\Z")


class Identity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The DICOM attributes that the catalogue keeps, as read from stored bytes; absent attributes are "".

    Each value is decoded text, stripped of padding, without control characters, at most 64 characters (longer
    values are cut): the sum is bounded, so an identity always fits an object's header. Values are data: none ever
    becomes a path. `any_file` marks an object that is not DICOM, taken on request.
    """

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    modality: str = ""
    series_number: str = ""
    series_description: str = ""
    instance_number: str = ""
    any_file: bool = False


def object_id(data: Buffer) -> str:
    """Return the id of the object whose bytes are `data`."""
    return blake3(data).hexdigest()


def is_object_id(text: str) -> bool:
    """Tell whether `text` is written as an object id is."""
    return OBJECT_ID.match(text) is not None
