"""Every real file: the identity that pydicom reads, whole, and seen to be cut wherever it is cut."""

import random

import pydicom
import pytest
from backports import zstd

from transfer.dicom import check_complete, read_identity
from transfer.errors import TruncatedError

KEYWORDS = {
    "sop_class_uid": "SOPClassUID",
    "sop_instance_uid": "SOPInstanceUID",
    "study_instance_uid": "StudyInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
    "patient_id": "PatientID",
    "patient_name": "PatientName",
    "patient_birth_date": "PatientBirthDate",
    "patient_sex": "PatientSex",
    "accession_number": "AccessionNumber",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "study_description": "StudyDescription",
    "modality": "Modality",
    "series_number": "SeriesNumber",
    "series_description": "SeriesDescription",
    "instance_number": "InstanceNumber",
}


def real_files(folder):
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "LICENSE" not in path.name:
            data = path.read_bytes()
            yield path, zstd.decompress(data) if path.suffix == ".zst" else data


def as_pydicom(path, identity):
    theirs = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(KEYWORDS.values()))
    assert identity.transfer_syntax_uid == theirs.file_meta.TransferSyntaxUID
    for field, keyword in KEYWORDS.items():
        value = theirs.get(keyword)
        assert getattr(identity, field) == ("" if value is None else str(value).strip()[:64]), (path, field)


@pytest.mark.parametrize("folder", ["ct_head", "wg04", "sts"])
def test_all_real_files(real_data, folder):
    numbers = random.Random(folder)
    count = 0
    for path, data in real_files(real_data / folder):
        identity = check_complete(data)
        assert read_identity(data[: 1 << 20]) == identity
        for size in (len(data) - 1, len(data) // 2, numbers.randrange(400, len(data))):
            with pytest.raises(TruncatedError):
                check_complete(data[:size])
        if path.suffix != ".zst" and (folder != "sts" or count % 7 == 0):
            as_pydicom(path, identity)
        count += 1
    assert count >= 100
