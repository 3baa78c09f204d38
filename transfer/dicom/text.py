"""Text of data elements (PS3.3 C.12.1.1.2, PS3.5 6.1): bytes to short, clean, bounded text.

A wrong or unknown character set never fails: bytes that do not fit become U+FFFD. Refuses to do: person name
components, multiple values, anything longer than `MAX_BYTES` or `MAX_CHARACTERS`.
"""

import functools
from typing import Final

MAX_BYTES: Final = 1024  # 64 characters with an escape sequence before each one fit
MAX_CHARACTERS: Final = 64

_NUMBERED: Final = {
    "100": "latin_1", "101": "iso8859_2", "109": "iso8859_3", "110": "iso8859_4", "144": "iso8859_5",
    "127": "iso8859_6", "126": "iso8859_7", "138": "iso8859_8", "148": "iso8859_9", "203": "iso8859_15",
    "13": "shift_jis", "166": "iso8859_11", "6": "latin_1", "87": "latin_1", "159": "latin_1", "149": "euc_kr",
    "58": "gb2312", "192": "utf_8",
}  # fmt: skip
_TERMS: Final = {"": "latin_1", "GB18030": "gb18030", "GBK": "gbk"} | {
    f"{prefix} {number}": codec
    for number, codec in _NUMBERED.items()
    for prefix in ("ISO_IR", "ISO 2022 IR", "ISO-IR", "ISO IR")
}
# Escape sequence after ESC -> codec, and whether the codec wants to see the sequence itself (PS3.3 table C.12-3, -4).
_ESCAPES: Final = {
    b"(B": ("latin_1", False), b"-A": ("latin_1", False), b"-B": ("iso8859_2", False), b"-C": ("iso8859_3", False),
    b"-D": ("iso8859_4", False), b"-L": ("iso8859_5", False), b"-G": ("iso8859_6", False),
    b"-F": ("iso8859_7", False), b"-H": ("iso8859_8", False), b"-M": ("iso8859_9", False),
    b"-b": ("iso8859_15", False), b"-T": ("iso8859_11", False), b"(J": ("shift_jis", False),
    b")I": ("shift_jis", False), b"$B": ("iso2022_jp", True), b"$(D": ("iso2022_jp_2", True),
    b"$)C": ("euc_kr", False), b"$)A": ("gb2312", False),
}  # fmt: skip
_UNSEEN: Final = dict.fromkeys(
    [*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF]
)  # C0, DEL, C1, line and paragraph separators, directional marks: they change how other text looks


@functools.lru_cache(maxsize=64)
def codec_of(specific_character_set: bytes) -> str:
    """Return the Python codec of the first value of (0008,0005); the default repertoire is read as Latin-1."""
    term = specific_character_set.split(b"\\", 1)[0].decode("latin_1").strip(" \0").upper()
    return _TERMS.get(term, "utf_8")


def clean_text(value: bytes, codec: str = "latin_1") -> str:
    """Decode the first `MAX_BYTES` of a value, without padding and control characters, cut at 64 characters."""
    value = value[:MAX_BYTES]
    plain = value.isascii() and b"\x1b" not in value
    text = (value.decode("ascii") if plain else _decode(value, codec)).strip(" \0")
    if not text.isprintable():
        text = text.translate(_UNSEEN).strip(" ")
    return text[:MAX_CHARACTERS]


def _decode(value: bytes, codec: str) -> str:
    if codec in {"utf_8", "gb18030", "gbk"}:  # these forbid code extensions
        return value.decode(codec, "replace")
    first, *rest = value.split(b"\x1b")
    return first.decode(codec, "replace") + "".join(map(_decode_escaped, rest))


def _decode_escaped(part: bytes) -> str:
    for length in (2, 3):
        codec, with_escape = _ESCAPES.get(part[:length], ("", False))
        if codec:
            return (b"\x1b" + part if with_escape else part[length:]).decode(codec, "replace")
    return part.decode("ascii", "replace")
