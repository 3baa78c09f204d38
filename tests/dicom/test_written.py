"""Data sets with nested sequences as pydicom writes them, in every layout: whole as written, cut when cut."""

import io

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from tests.dicom.build import CT
from transfer.dicom import check_complete, read_file_meta, read_identity
from transfer.errors import TruncatedError


def data_set(*, undefined):
    inner = Dataset()
    for depth in range(5):
        outer = Dataset()
        outer.Modality, outer.SeriesNumber = "MR", depth
        outer.RequestAttributesSequence = Sequence([inner, Dataset()])
        outer["RequestAttributesSequence"].is_undefined_length = undefined
        for item in outer.RequestAttributesSequence:
            item.is_undefined_length_sequence_item = undefined
        inner = outer
    outer.SOPClassUID, outer.SOPInstanceUID, outer.Modality, outer.SeriesNumber = CT, "1.2.3", "CT", "12"
    outer.Rows, outer.PixelData = 8, bytes(128)
    outer["PixelData"].VR = "OW"
    return outer


def written(syntax, *, undefined):
    out = io.BytesIO()
    instance = data_set(undefined=undefined)
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(out, instance, enforce_file_format=True)
    return out.getvalue()


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_nested_sequences(syntax, undefined):
    data = written(syntax, undefined=undefined)
    identity = check_complete(data)
    assert identity == read_identity(data)
    assert (identity.modality, identity.series_number, identity.transfer_syntax_uid) == ("CT", "12", syntax)
    for size in range(read_file_meta(memoryview(data)).data_set_offset, len(data) - 1):
        with pytest.raises(TruncatedError):
            check_complete(data[:size])
