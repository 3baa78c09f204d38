"""The identity of a DICOM file, read from its bytes, and the proof that the file is whole.

An identity is what the catalogue needs (`transfer.objects.Identity`); see `_FIELDS` for the tags. Where the data set
has no SOP class or instance UID (a DICOMDIR), those of the file meta information stand in.

A file is whole when the walk over its elements ends exactly at its end, or in zeros. A cut between two elements leaves
such a file too; it shows in what is missing: an image's Rows without pixel or spectroscopy data behind, or a composite
instance without anything behind its identity. Refuses to do: judging values, reading pixel data.
"""

from typing import Any, Final

from typing_extensions import Buffer

from transfer.dicom import syntaxes
from transfer.dicom.inflate import InflatedWalk
from transfer.dicom.part10 import FileMeta, read_file_meta
from transfer.dicom.runs import Wanted
from transfer.dicom.text import clean_text, codec_of
from transfer.dicom.walk import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Layout, Walk
from transfer.errors import NotDicomError, TruncatedError
from transfer.objects import Identity

_CHARACTER_SET: Final = 0x00080005
_SOP_CLASS: Final = 0x00080016
_ROWS: Final = 0x00280010
_PIXEL_DATA_GROUP: Final = 0x7FE0
_SPECTROSCOPY_DATA_GROUP: Final = 0x5600  # in place of pixel data (PS3.3 C.8.14.4)
_SPECTROSCOPY: Final = "1.2.840.10008.5.1.4.1.1.4.2"
_COMPOSITE: Final = "1.2.840.10008.5.1.4.1.1."
_NOT_COMPOSITE: Final = (f"{_COMPOSITE}200.", f"{_COMPOSITE}201.")  # protocols and inventories may end early
_FIELDS: Final = {
    _SOP_CLASS: "sop_class_uid",
    0x00080018: "sop_instance_uid",
    0x00080020: "study_date",
    0x00080030: "study_time",
    0x00080050: "accession_number",
    0x00080060: "modality",
    0x00081030: "study_description",
    0x0008103E: "series_description",
    0x00100010: "patient_name",
    0x00100020: "patient_id",
    0x00100030: "patient_birth_date",
    0x00100040: "patient_sex",
    0x0020000D: "study_instance_uid",
    0x0020000E: "series_instance_uid",
    0x00200011: "series_number",
    0x00200013: "instance_number",
}
_WANTED: Final = Wanted({_CHARACTER_SET, _ROWS, *_FIELDS}, last=_ROWS)


def read_identity(data: Buffer) -> Identity:
    """Return the identity of the DICOM file that `data` is, or begins; 1 MiB is mostly enough, and never too much.

    Raises:
        NotDicomError: no DICOM file, or one whose nesting, element count or inflated size passes the limits.
        TruncatedError: the bytes end before all wanted elements are passed, inside an element; give more of them.
    """
    with memoryview(data) as raw, raw.cast("B") as view:
        return IdentityReader(view).finish()


def check_complete(data: Buffer) -> Identity:
    """Return the identity of the whole DICOM file `data`, after proving that no element reaches beyond its end.

    Only headers are read, so that a memory-mapped file of any size costs few pages and no copy.

    Raises:
        NotDicomError: as `read_identity`; also bytes that are neither elements nor zeros, an empty data set.
        TruncatedError: an element, sequence or the pixel data reaches beyond the end.
    """
    check, meta, _ = _whole(data)
    return check.identity(meta)


def sop_class_of_complete(data: Buffer) -> str:
    """Return the SOP class UID of a whole DICOM file, "" if it has none, after the same proof; errors alike."""
    check, meta, sop_class_uid = _whole(data)
    return sop_class_uid or check.identity(meta).sop_class_uid


def _whole(data: Buffer) -> tuple["DataSetCheck", FileMeta, str]:
    with memoryview(data) as raw, raw.cast("B") as view:
        meta = read_file_meta(view)
        if meta.data_set_offset == len(view):
            raise TruncatedError("truncated: no data set follows the file meta information")
        check = DataSetCheck(meta.transfer_syntax_uid)
        check.feed(view, meta.data_set_offset)
        return check, meta, check.finish(meta.sop_class_uid)


class IdentityReader:
    """`read_identity` for a file that comes in blocks, the file meta information in the first; errors alike."""

    def __init__(self, head: memoryview) -> None:
        self._meta = read_file_meta(head)
        self._check = DataSetCheck(self._meta.transfer_syntax_uid)
        self._check.feed(head, self._meta.data_set_offset, until_passed=True)

    def feed(self, block: memoryview) -> None:
        """Look into the next bytes, if all that is wanted has not been seen yet."""
        if not self._check.passed:
            self._check.feed(block, until_passed=True)

    def finish(self) -> Identity:
        """Return the identity, now that no more comes."""
        if not self._check.passed:
            self._check.finish(self._meta.sop_class_uid)
        return self._check.identity(self._meta)


class DataSetCheck:
    """`check_complete` for a data set without file meta information that arrives in pieces, as by C-STORE."""

    def __init__(self, transfer_syntax_uid: str) -> None:
        self._syntax = transfer_syntax_uid
        self._walk = Walk(_layout(transfer_syntax_uid), _WANTED)
        self.inflates = transfer_syntax_uid in syntaxes.DEFLATED
        """Whether a few bytes may be seconds of work; otherwise `feed` takes time by what it is given."""
        self._feeder: Walk | InflatedWalk = InflatedWalk(self._walk) if self.inflates else self._walk

    @property
    def passed(self) -> bool:
        """Whether everything that an identity holds has been seen."""
        return self._walk.passed

    def feed(self, view: memoryview, start: int = 0, *, until_passed: bool = False) -> None:
        """Take the next bytes, any number of them; raises NotDicomError."""
        self._feeder.feed(view, start, until_passed=until_passed)

    def finish(self, sop_class_uid: str = "") -> str:
        """Take the end of an instance that is said to be of `sop_class_uid`; return what its own bytes say, if they do.

        Raises:
            TruncatedError: the end is inside an element, or the essential is missing.
        """
        self._feeder.finish()
        values, group = self._walk.values, self._walk.last_group
        sop_class_uid = clean_text(values.get(_SOP_CLASS, b"")) or sop_class_uid
        content_group = _SPECTROSCOPY_DATA_GROUP if sop_class_uid == _SPECTROSCOPY else _PIXEL_DATA_GROUP
        if _ROWS in values and group < content_group and self._syntax not in syntaxes.REFERENCED:
            raise TruncatedError("truncated: an image without its pixel data")
        composite = sop_class_uid.startswith(_COMPOSITE) and not sop_class_uid.startswith(_NOT_COMPOSITE)
        if composite and group <= 0x0020:
            raise TruncatedError("truncated: ends behind the identity, before all content")
        return sop_class_uid

    def identity(self, meta: FileMeta | None = None) -> Identity:
        """Return what was found so far; without `meta`, UIDs are the data set's own or absent.

        Raises:
            NotDicomError: nothing at all was found.
        """
        values = self._walk.values
        codec = codec_of(values.get(_CHARACTER_SET, b""))
        fields: dict[str, Any] = {
            name: clean_text(values[tag], codec) for tag, name in _FIELDS.items() if tag in values
        }
        if meta is not None:
            fields["sop_class_uid"] = fields.get("sop_class_uid") or meta.sop_class_uid
            fields["sop_instance_uid"] = fields.get("sop_instance_uid") or meta.sop_instance_uid
        if not any(fields.values()):
            raise NotDicomError("not DICOM: none of the elements that identify an instance")
        return Identity(transfer_syntax_uid=self._syntax, **fields)


def _layout(transfer_syntax_uid: str) -> Layout:
    if transfer_syntax_uid in syntaxes.IMPLICIT:
        return IMPLICIT_LITTLE
    return EXPLICIT_BIG if transfer_syntax_uid == syntaxes.EXPLICIT_BIG else EXPLICIT_LITTLE
