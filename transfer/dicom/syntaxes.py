"""Transfer syntaxes (PS3.5 section 10 and annex A): how each one lays out a data set, as tables.

Every syntax that is not named otherwise here is explicit VR little endian, as PS3.5 A.4 requires of all
encapsulated ones. Refuses to do: decoding pixel data.
"""

from typing import Final

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"

IMPLICIT: Final = frozenset({IMPLICIT_LITTLE, "1.2.840.113619.5.2"})  # the second: GE private, pixel data big endian
DEFLATED: Final = frozenset({DEFLATED_LITTLE, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
REFERENCED: Final = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (94, 95, 204, 205))  # JPIP: pixels lie elsewhere

# All transfer syntaxes that PS3.6 table A-1 lists for data sets, retired ones too, most faithful first.
STORAGE: Final = (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    EXPLICIT_BIG,
    DEFLATED_LITTLE,
    "1.2.840.10008.1.2.1.98",  # encapsulated uncompressed explicit VR little endian
    *(f"1.2.840.10008.1.2.4.{n}" for n in range(50, 67)),  # JPEG, all processes
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    *(f"1.2.840.10008.1.2.4.{n}" for n in range(90, 96)),  # JPEG 2000, parts 1 and 2; JPIP referenced
    *(f"1.2.840.10008.1.2.4.{n}" for n in range(100, 109)),  # MPEG-2, MPEG-4, HEVC
    *(f"1.2.840.10008.1.2.4.{n}.1" for n in range(100, 107)),  # the fragmentable forms of MPEG-2 and MPEG-4
    *(f"1.2.840.10008.1.2.4.{n}" for n in range(110, 113)),  # JPEG XL
    *(f"1.2.840.10008.1.2.4.{n}" for n in range(201, 206)),  # high-throughput JPEG 2000; JPIP referenced
    "1.2.840.10008.1.2.5",  # RLE lossless
    *(f"1.2.840.10008.1.2.7.{n}" for n in range(1, 4)),  # SMPTE ST 2110
    "1.2.840.10008.1.2.8.1",  # deflated image frame compression
)
