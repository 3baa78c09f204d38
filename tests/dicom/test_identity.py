"""Reading identities: each way a data set can be written, what is kept, what is refused."""

import mmap
import struct
import zlib

import pytest

from tests.dicom.build import (
    BIG,
    CT,
    DEFLATED,
    EXPLICIT,
    FIELDS,
    IMAGE,
    IMPLICIT,
    ITEM_END,
    PIXELS,
    SEQUENCE_END,
    UNDEFINED,
    element,
    explicit_image,
    file,
    implicit,
    implicit_image,
    item,
    uid,
)
from transfer.dicom import check_complete, read_identity
from transfer.errors import NotDicomError, TruncatedError
from transfer.objects import Identity


def deflate(data, level=6):
    encoder = zlib.compressobj(level, zlib.DEFLATED, -15)
    return encoder.compress(data) + encoder.flush()


def expected(syntax):
    return Identity(
        sop_class_uid=CT,
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=syntax,
        study_date="20240102",
        modality="CT",
        patient_name="Müller^Jörg",
        patient_id="P1",
        study_instance_uid="1.2.3.1",
        series_instance_uid="1.2.3.1.1",
        instance_number="7",
    )


@pytest.mark.parametrize(
    ("syntax", "data_set"),
    [
        (EXPLICIT, explicit_image()),
        (IMPLICIT, implicit_image()),
        (BIG, explicit_image(">")),
        (DEFLATED, deflate(explicit_image())),
        (DEFLATED, deflate(explicit_image()) + b"\0"),
        ("1.2.840.10008.1.2.4.50", explicit_image()),
        ("1.2.3.999", explicit_image()),
        (IMPLICIT, explicit_image()),  # the syntax says one thing, the first element another
        (EXPLICIT, implicit_image()),
    ],
)
def test_each_layout_gives_the_same_identity(syntax, data_set):
    assert check_complete(file(data_set, syntax)) == expected(syntax)
    assert read_identity(file(data_set, syntax)) == expected(syntax)


def test_identity_needs_only_the_beginning():
    data = file(explicit_image())
    assert read_identity(data[: -len(PIXELS)]) == expected(EXPLICIT)
    with pytest.raises(TruncatedError):
        check_complete(data[:-1])


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_any_buffer_is_read_and_released(make):
    data = make(file(explicit_image()))
    assert check_complete(data) == expected(EXPLICIT)
    if make is bytearray:
        data += b"\0"  # would raise BufferError were a view left open


def test_a_mapped_file_can_be_closed_after_an_error(tmp_path):
    (tmp_path / "f").write_bytes(file(explicit_image())[:-1])
    with (
        pytest.raises(TruncatedError),
        (tmp_path / "f").open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        check_complete(mapped)


@pytest.mark.parametrize("data", [b"", b"\0" * 131, bytes(128) + b"DICX" + bytes(99), b"GET / HTTP/1.1\r\n" * 20])
def test_what_has_no_prefix_is_not_dicom(data):
    for read in (read_identity, check_complete):
        with pytest.raises(NotDicomError, match="not DICOM"):
            read(data)


def test_executable_preamble_is_only_bytes():
    data = file(explicit_image(), preamble=b"MZ\x90\0" + b"\x7fELF" * 31)
    assert check_complete(data) == expected(EXPLICIT)


@pytest.mark.parametrize("behind", [b"\0", bytes(7), bytes(100_000), element(0xFFFCFFFC, "OB", bytes(1000))])
def test_trailing_padding_is_accepted(behind):
    assert check_complete(file(explicit_image() + behind)) == expected(EXPLICIT)


@pytest.mark.parametrize("behind", [b"\1", b"\0" * 20 + b"\1", b"garbage!!", bytes(70_000) + b"x"])
def test_trailing_garbage_is_not(behind):
    with pytest.raises((TruncatedError, NotDicomError)):
        check_complete(file(explicit_image() + behind))


def test_every_cut_of_an_image_is_seen():
    data = file(explicit_image())
    for size in range(len(data)):
        with pytest.raises((TruncatedError, NotDicomError)):
            check_complete(data[:size])


FRAGMENTS = element(0x7FE00010, "OB", length=UNDEFINED) + item() + item(b"\xff\xd8ab") + item(b"cd") + SEQUENCE_END


def test_encapsulated_pixel_data_is_walked_to_its_end():
    data = file(b"".join(element(*each) for each in IMAGE[:-1]) + FRAGMENTS)
    assert check_complete(data) == expected(EXPLICIT)
    assert check_complete(data + element(0xFFFCFFFC, "OB", b"\0\0")) == expected(EXPLICIT)
    for size in range(len(data) - len(FRAGMENTS), len(data)):
        with pytest.raises(TruncatedError):
            check_complete(data[:size])


def nested(depth, *, vr="SQ"):
    inside = implicit if vr == "UN" else (lambda tag, **more: element(tag, "SQ", **more))
    out = element(0x00081140, vr, length=UNDEFINED) + item(length=UNDEFINED)
    out += (inside(0x00081140, length=UNDEFINED) + item(length=UNDEFINED)) * (depth - 1)
    return out + (ITEM_END + SEQUENCE_END) * depth


@pytest.mark.parametrize("vr", ["SQ", "UN"])
def test_sequences_of_undefined_length_are_walked(vr):
    head, tail = IMAGE[:5], IMAGE[5:]
    data = b"".join(element(*e) for e in head) + nested(64, vr=vr) + b"".join(element(*e) for e in tail)
    assert check_complete(file(data)) == expected(EXPLICIT)


@pytest.mark.parametrize(("depth", "closed"), [(65, True), (10_000, True), (10_000, False)])
def test_nesting_is_bounded(depth, closed):
    bomb = nested(depth)
    bomb = bomb if closed else bomb[: len(bomb) // 2]
    for read in (read_identity, check_complete):
        with pytest.raises(NotDicomError, match="nested deeper than 64"):
            read(file(bomb))


def test_values_inside_sequences_are_not_the_instance_s():
    inner = element(0x00080060, "CS", b"MR") + element(0x00080018, "UI", uid("9.9"))
    for sequence in (
        element(0x00080006, "SQ", item(inner)),
        element(0x00080006, "SQ", item(inner, length=UNDEFINED) + ITEM_END + SEQUENCE_END, length=UNDEFINED),
    ):
        assert check_complete(file(sequence + explicit_image())) == expected(EXPLICIT)


def test_delimiters_that_close_nothing_are_passed():
    sequence = element(0x00081140, "SQ", length=UNDEFINED) + item(element(0x00080060, "CS", b"MR")) + ITEM_END
    assert check_complete(file(sequence + SEQUENCE_END + SEQUENCE_END + explicit_image())).modality == "CT"


@pytest.mark.parametrize(
    "wrong",
    [
        item(b"ab"),
        element(0x00081140, "SQ", length=UNDEFINED) + element(0x00080060, "CS", b"MR"),
        element(0x00081140, "SQ", length=UNDEFINED) + item(length=UNDEFINED) + SEQUENCE_END,
        element(0x00081140, "SQ", length=UNDEFINED) + bytes(64),
        implicit(0xFFFE1234),
    ],
)
def test_structure_out_of_place_is_refused(wrong):
    with pytest.raises(NotDicomError):
        check_complete(file(element(*FIELDS[0]) + wrong + explicit_image()))


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 1 << 31])
def test_huge_lengths_cost_nothing(length):
    with pytest.raises(TruncatedError, match="beyond the end"):
        check_complete(file(explicit_image() + element(0x7FE10010, "OB", length=length)))
    with pytest.raises((TruncatedError, NotDicomError)):
        check_complete(bytes(128) + b"DICM" + element(0x00020001, "OB", length=length) + bytes(100))
    with pytest.raises(TruncatedError):
        read_identity(file(element(0x00080016, "UN", length=length) + bytes(100)))


def test_group_length_of_the_meta_information_is_not_trusted():
    data = bytearray(file(explicit_image()))
    for length in (0, 4, 0xFFFFFFFF):
        data[140:144] = struct.pack("<L", length)
        assert check_complete(data) == expected(EXPLICIT)


def test_uids_are_only_data():
    head = element(0x00080016, "UI", uid(CT)) + element(0x00080018, "UI", uid("../../x"))
    identity = check_complete(file(head + b"".join(element(*each) for each in IMAGE[3:])))
    assert identity.sop_instance_uid == "../../x"


def test_directory_takes_its_uids_from_the_meta_information():
    directory = "1.2.840.10008.1.3.10"
    data_set = element(0x00041130, "CS", b"SET ") + element(0x00041220, "SQ", b"")
    identity = check_complete(file(data_set, sop_class=directory, instance="4.5"))
    assert identity == Identity(sop_class_uid=directory, sop_instance_uid="4.5", transfer_syntax_uid=EXPLICIT)


@pytest.mark.parametrize(
    ("sop_class", "whole"), [(CT, False), ("1.2.840.10008.5.1.4.1.1.201.1", True), ("1.2.3", True)]
)
def test_an_end_before_all_content_is_a_cut_of_composite_instances_only(sop_class, whole):
    data = file(element(0x00080016, "UI", uid(sop_class)) + element(0x00080060, "CS", b"CT"), sop_class=sop_class)
    if whole:
        assert check_complete(data).sop_class_uid == sop_class
    else:
        with pytest.raises(TruncatedError, match="before all content"):
            check_complete(data)


def test_rows_without_pixel_data_are_a_cut():
    data_set = b"".join(element(*each) for each in IMAGE[:-1]) + element(0x00400244, "DA", b"20240102")
    with pytest.raises(TruncatedError, match="without its pixel data"):
        check_complete(file(data_set))
    assert check_complete(file(data_set, "1.2.840.10008.1.2.4.94")).modality == "CT"  # JPIP: pixels lie elsewhere


def test_spectroscopy_has_rows_and_no_pixel_data():
    spectroscopy = "1.2.840.10008.5.1.4.1.1.4.2"
    head = element(0x00080016, "UI", uid(spectroscopy)) + b"".join(element(*each) for each in FIELDS[2:])
    head += element(0x00280010, "US", b"\1\0") + element(0x00280011, "US", b"\1\0")
    data = file(head + element(0x56000020, "OF", bytes(64)), sop_class=spectroscopy)
    assert check_complete(data).sop_class_uid == spectroscopy
    for data_set in (head, head + element(0x52009229, "SQ", b"")):
        with pytest.raises(TruncatedError, match="without its"):
            check_complete(file(data_set, sop_class=spectroscopy))


def test_first_occurrence_counts():
    twice = element(0x00080060, "CS", b"MR") + explicit_image()
    assert check_complete(file(twice)).modality == "MR"


def test_deflated_bombs_are_bounded():
    bomb = deflate(b"".join(element(*each) for each in IMAGE[:-1]) + element(0x7FE00010, "OW", bytes(200 << 20)), 9)
    assert read_identity(file(bomb, DEFLATED)) == expected(DEFLATED)
    with pytest.raises(NotDicomError, match="refused"):
        check_complete(file(bomb, DEFLATED))
    late = deflate(element(0x00080001, "UN", bytes(2 << 20)) + explicit_image(), 9)
    with pytest.raises(NotDicomError, match="refused"):
        read_identity(file(late, DEFLATED))
    assert check_complete(file(late, DEFLATED)) == expected(DEFLATED)


def test_deflated_cuts_and_garbage_are_seen():
    data = file(deflate(explicit_image()), DEFLATED)
    start = len(file(b"", DEFLATED))
    for size in range(start, len(data)):
        with pytest.raises((TruncatedError, NotDicomError)):
            check_complete(data[:size])
    with pytest.raises(NotDicomError, match="deflate"):
        check_complete(file(b"\xff" * 50, DEFLATED))
    with pytest.raises(NotDicomError, match="follows"):
        check_complete(data + b"x")


def test_messages_hold_no_values():
    secret = element(0x00100010, "PN", b"SECRET^NAME ") + element(0x00100020, "LO", length=60_000)
    with pytest.raises(TruncatedError) as caught:
        check_complete(file(secret))
    assert "SECRET" not in caught.value.message
