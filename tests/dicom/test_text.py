"""Text of elements: character sets as pydicom decodes them, and what is cut away."""

import pytest
from pydicom.charset import convert_encodings, decode_bytes

from transfer.dicom.text import clean_text, codec_of

CASES = [  # PS3.5 annexes H, I, J, K
    (b"", b"Plain^Name"),
    (b"ISO_IR 100", b"Buc^J\xe9r\xf4me"),
    (b"ISO_IR 101", b"W\xb3odarczyk^\xa3"),
    (b"ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2"),
    (b"ISO_IR 144", b"\xbb\xee\xda\xe1\xd5\xdc\xd1\xe3\xe0\xd3"),
    (b"ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd1"),
    (b"ISO_IR 138", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4"),
    (b"ISO_IR 166", b"\xb9\xd2\xc2"),
    (b"ISO_IR 192", "Wang^XiaoDong=王^小東".encode()),
    (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030")),
    (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"),
    (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J"),
    (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    (b"\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"),
]


@pytest.mark.parametrize(("character_set", "value"), CASES)
def test_decodes_as_pydicom_does(character_set, value):
    encodings = convert_encodings(character_set.decode().split("\\"))
    expected = decode_bytes(value, encodings, {0x5C, 0x5E, 0x3D})
    expected = expected.replace("\x1b$)A", "")  # pydicom leaves the escape sequences of GB 2312 in
    assert clean_text(value, codec_of(character_set)) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b" CT ", "CT"),
        (b"1.2.3\0", "1.2.3"),
        (b"\0\0", ""),
        (b"a\r\nb\x1b[31mc\x7f", "ab[31mc"),
        (b"x" * 70, "x" * 64),
        (b"x" * 100_000, "x" * 64),
        (b"ab\\cd", "ab\\cd"),
    ],
)
def test_padding_control_characters_and_length(value, text):
    assert clean_text(value) == text


def test_wrong_bytes_become_replacement_characters():
    assert clean_text(b"a\xff\xfeb", "utf_8") == "a\ufffd\ufffdb"
    assert clean_text(b"a\x1b$B\xff\xffb", codec_of(b"\\ISO 2022 IR 87")).startswith("a\ufffd")
    assert codec_of(b"no such set") == "utf_8"
    assert codec_of(b"\xff\xfe") == "utf_8"


def test_directional_marks_are_removed():
    assert clean_text("a\u202eb\u2066c\u2028d".encode(), "utf_8") == "abcd"
