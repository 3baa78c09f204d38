"""What framing and hashing cost: control messages, data frames of 64 KiB and 1 MiB, object ids."""

from collections.abc import Iterator

import numpy as np

from bench.measure import Figure, best_s
from transfer.objects import object_id
from transfer.protocol.frames import FrameReader, encode_control, encode_data_header
from transfer.protocol.messages import Get


def figures() -> Iterator[Figure]:
    """Measure."""
    get = encode_control(Get(bytes(32)))
    count = 1000
    yield Figure("frame GET, written", "frames", 1 / best_s(lambda: encode_control(Get(bytes(32)))))
    yield Figure("frame GET, read", "frames", count / best_s(lambda: _read(get * count)))
    for length in (64 << 10, 1 << 20):
        stream = (encode_data_header(0, length) + bytes(length)) * (4 << 20 >> length.bit_length() - 1)
        name = f"DATA frames of {length >> 10} KiB, read"
        yield Figure(name, "MB", len(stream) / 1e6 / best_s(lambda stream=stream: _read(stream)))
    for length in (10_000, 532_000):
        data = np.random.default_rng(1).bytes(length)
        yield Figure(f"object id of {length} bytes", "MB", length / 1e6 / best_s(lambda data=data: object_id(data)))


def _read(stream: bytes) -> int:
    reader = FrameReader()
    reader.data_allowed = True
    at = frames = 0
    while at < len(stream):
        buffer = reader.buffer()
        taken = min(len(buffer), len(stream) - at)
        buffer[:taken] = stream[at : at + taken]
        reader.received(taken)
        at += taken
        frames += sum(1 for _ in reader.frames())
    return frames
