"""What an object says it is, as its bytes come by: also behind more than a mebibyte of other elements."""

import pytest
from blake3 import blake3

from nodes.digests import HEAD_BYTES, Digests
from tests.dicom.build import CT, FIELDS, IMAGE, PIXELS, element, explicit_image, file, implicit, item, uid
from transfer.dicom import read_identity
from transfer.encodings import get_encoding


def identity_of(data, *, encoding="raw", piece=1 << 20):
    stored = bytes(get_encoding(encoding).encode(data))
    digests = Digests(blake3(data).hexdigest(), len(data), encoding)
    for start in range(0, len(stored), piece):
        digests.feed(memoryview(stored)[start : start + piece])
    digests.finish()
    return digests.identity()


REFERENCE = item(element(0x00081150, "UI", uid(CT)) + element(0x00081155, "UI", uid("1.2.3." + "9" * 50)))
MANY = element(0x0008114A, "SQ", REFERENCE * (HEAD_BYTES // len(REFERENCE) + 1))  # of a segmentation, for one
LONG = file(b"".join(element(*each) for each in IMAGE[:5]) + MANY + b"".join(element(*each) for each in IMAGE[5:]))


@pytest.mark.parametrize("encoding", ["raw", "zstd"])
@pytest.mark.parametrize("piece", [1000, 99_991, 1 << 20])
def test_a_long_header_hides_no_identity(encoding, piece):
    assert len(LONG) > HEAD_BYTES
    found = identity_of(LONG, encoding=encoding, piece=piece)
    assert found == read_identity(LONG) == read_identity(file(explicit_image()))


@pytest.mark.parametrize("size", [0, 1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, 3 * HEAD_BYTES])
def test_what_stands_behind_the_pixel_data_s_beginning_does_not_matter(size):
    data_set = b"".join(element(*each) for each in IMAGE[:-1]) + element(0x7FE00010, "OW", PIXELS + bytes(size))
    assert identity_of(file(data_set)) == read_identity(file(data_set))


@pytest.mark.parametrize(
    "data",
    [
        b"no DICOM",
        bytes(3 * HEAD_BYTES),
        LONG[: HEAD_BYTES + 50],
        file(element(*FIELDS[0]) + MANY + implicit(0xFFFE1234) + explicit_image()),
        file(element(*FIELDS[0]) + MANY),
    ],
)
def test_what_does_not_say_is_any_file(data):
    assert identity_of(data).any_file
