"""The header that is put before received data sets, read back by ourselves and by pydicom."""

import io

import pydicom
import pytest

from tests.dicom.build import CT, EXPLICIT, explicit_image
from transfer.dicom import check_complete, part10_header, read_file_meta
from transfer.errors import NotDicomError


@pytest.mark.parametrize("source", ["", "SCANNER", "SIXTEEN_LETTERS_", "MORE_THAN_SIXTEEN_LETTERS", "Ä"])
def test_header_is_read_back(source):
    header = part10_header(CT, "1.2.3", EXPLICIT, source)
    meta = read_file_meta(memoryview(header))
    assert meta == (CT, "1.2.3", EXPLICIT, len(header))
    theirs = pydicom.dcmread(io.BytesIO(header + explicit_image())).file_meta
    assert theirs.FileMetaInformationGroupLength == len(header) - 144
    assert theirs.MediaStorageSOPInstanceUID == "1.2.3"
    assert theirs.get("SourceApplicationEntityTitle", "") == source.replace("Ä", "?")[:16]
    assert theirs.ImplementationClassUID.is_valid
    assert check_complete(header + explicit_image()).sop_instance_uid == "1.2.3"


def test_header_is_the_same_every_time():
    assert part10_header(CT, "1.2.3", EXPLICIT, "A") == part10_header(CT, "1.2.3", EXPLICIT, "A")


@pytest.mark.parametrize("uid", ["", "1" * 65, "1.2.ü"])
def test_uids_that_cannot_be_written_are_refused(uid):
    with pytest.raises(NotDicomError):
        part10_header(CT, uid, EXPLICIT)


def test_uids_are_written_as_they_are():
    assert read_file_meta(memoryview(part10_header(CT, "../../x", EXPLICIT))).sop_instance_uid == "../../x"
