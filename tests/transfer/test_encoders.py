"""Encoders put the stored form in an object's place, or leave it as it is where nothing is gained."""

import dataclasses
import os
import struct
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest
import trio
from typing_extensions import Buffer

from tests.encodings.images import Image
from tests.store.objects import dicom, noise
from transfer import encoders
from transfer.chooser import Chooser, open_chooser
from transfer.encoders import Encoders, choose_for_large, encode_as_chosen
from transfer.encodings import IMAGE_ENCODINGS, encode_checked, get_encoding
from transfer.errors import NotSuitableError, SettingsError
from transfer.ledger import Ledger
from transfer.link import Link
from transfer.objects import object_id
from transfer.outcomes import Counters
from transfer.work import Item

T = TypeVar("T")
IMAGE = Image(rows=256, columns=256).encode()
COMPRESSED = dicom("1.2.3").replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0") + noise(50_000)


def auto(bytes_s: float) -> Chooser:
    return open_chooser("auto", Link(bytes_s), workers=2)


def decoded(encoding: str, stored: bytes, size_bytes: int) -> bytes:
    decoder = get_encoding(encoding).decoder(size_bytes)
    data = b"".join(map(bytes, decoder.feed(stored)))
    decoder.finish()
    return data


@pytest.mark.parametrize(("bytes_s", "expected"), [(0.25e6, "jxl-7"), (12.5e6, "jpegls"), (125e6, "gradient-pack")])
def test_the_slower_the_link_the_denser_the_form(bytes_s: float, expected: str) -> None:
    encoded = encode_as_chosen(auto(bytes_s), IMAGE)
    assert encoded is not None
    assert encoded.encoding == expected
    assert decoded(encoded.encoding, bytes(encoded.stored), len(IMAGE)) == IMAGE


def test_an_image_on_a_link_faster_than_all_encoders_goes_as_it_is() -> None:
    assert encode_as_chosen(auto(12e9), IMAGE) is None


@pytest.mark.parametrize("data", [noise(100_000), COMPRESSED], ids=["noise", "compressed"])
def test_what_does_not_get_smaller_goes_as_it_is_and_is_not_tried_for_ever(data: bytes) -> None:
    chooser = auto(0.25e6)
    assert [encode_as_chosen(chooser, data) for _ in range(5)] == [None] * 5
    assert chooser.choose(data).name == "raw"
    assert choose_for_large(chooser, data)[1] == "raw"
    assert choose_for_large(auto(0.25e6), data)[1] == "raw"  # with a chooser that does not know it yet


def test_a_large_object_is_chosen_for_as_one_encoder_does_it() -> None:
    many = open_chooser("auto", Link(2.5e6), workers=16)
    assert encode_as_chosen(many, IMAGE).encoding == "jxl-7"  # type: ignore[union-attr]  # sixteen of them fill the link
    kind, name = choose_for_large(many, IMAGE)
    assert name == "jxl-3"  # one jxl-7 does 1.4 MB/s, less than the link carries as it is
    many.set_aside(kind, name)
    assert choose_for_large(many, IMAGE)[1] not in ("jxl-3", "jxl-7", "raw")
    assert choose_for_large(open_chooser("auto", Link(12e9), workers=16), IMAGE)[1] == "raw"


def test_a_report_goes_as_zstd_whatever_encoding_of_images_was_asked_for() -> None:
    report = dicom("1.2.3") + bytes(50_000)
    for name in ("auto", *IMAGE_ENCODINGS):
        encoded = encode_as_chosen(open_chooser(name, Link(0.25e6), workers=1), report)
        assert encoded is not None
        assert encoded.encoding == "zstd"
        assert decoded("zstd", bytes(encoded.stored), len(report)) == report


def test_pixel_data_shorter_than_its_header_says_is_no_image() -> None:
    rows = struct.pack("<HH2sHH", 0x0028, 0x0010, b"US", 2, 256)
    assert rows in IMAGE
    lying = IMAGE.replace(rows, rows[:-2] + struct.pack("<H", 512))
    encoded = encode_as_chosen(open_chooser("htj2k", Link(), workers=1), lying)
    assert encoded is None or encoded.encoding == "zstd"


def test_an_encoder_that_is_too_slow_is_given_up_and_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object, **__: object) -> bytes:
        raise NotSuitableError("too slow for this object")

    chooser = auto(0.25e6)
    first = chooser.choose(IMAGE).name
    monkeypatch.setattr(encoders, "encode_checked", slow)
    assert encode_as_chosen(chooser, IMAGE) is None
    assert chooser.choose(IMAGE).name not in ("raw", first)


def test_an_unknown_encoding_is_told_at_once() -> None:
    with pytest.raises(SettingsError, match="htj3k"):
        open_chooser("htj3k", Link(), workers=1)


async def test_wanted_objects_are_encoded_and_their_memory_is_accounted_for() -> None:
    ledger = Ledger(Counters(), 10.0)
    ledger.encodes = True
    bodies = [dataclasses.replace(Image(rows=128, columns=128), seed=seed).encode() for seed in range(6)]
    for body in bodies:
        await ledger.budget.take(len(body))
        ledger.take_answer(Item(object_id(body), len(body), [], body), stored=False)
    link = Link(1e6)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Encoders(ledger, open_chooser("htj2k", link, workers=2), link, workers=2).serve)
        with trio.fail_after(30):
            items = [await ledger.work.take("node-1", patience_s=lambda _: 60.0) for _ in bodies]
        nursery.cancel_scope.cancel()
    for item in items:
        assert item is not None
        assert item.encoded is not None
        assert item.body is None
        assert item.encoded.encoding == "htj2k"
        data = decoded("htj2k", bytes(item.encoded.stored), item.size_bytes)
        assert object_id(data) == item.object_id
        ledger.durable(item, "node-1")
    with trio.fail_after(1):
        await ledger.budget.take(encoders.BATCH_BYTES << 10)  # waits for ever while anything else is in memory


async def test_no_more_encoders_run_than_were_asked_for_whatever_they_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small objects ahead of the flows, and blocks of large ones for five flows; all in threads that give way."""
    running, most, priorities = 0, 0, set()
    lock = threading.Lock()
    encode = encoders.encode_as_chosen

    def watched(work: Callable[[], T]) -> T:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            priorities.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        time.sleep(0.01)
        try:
            return work()
        finally:
            with lock:
                running -= 1

    class Watched:
        def feed(self, block: Buffer) -> bytes:
            return watched(lambda: bytes(block))

        def finish(self) -> bytes:
            return b""

    monkeypatch.setattr(encoders, "encode_as_chosen", lambda *words: watched(lambda: encode(*words)))
    monkeypatch.setattr(encoders, "BATCH_COUNT", 1)
    ledger, link = Ledger(Counters(), 10.0), Link(1e6)
    ledger.encodes = True
    bodies = [dataclasses.replace(Image(rows=64, columns=64), seed=seed).encode() for seed in range(12)]
    for body in bodies:
        await ledger.budget.take(len(body))
        ledger.take_answer(Item(object_id(body), len(body), [], body), stored=False)
    pool = Encoders(ledger, open_chooser("htj2k", link, workers=2), link, workers=2)

    async def flow() -> None:
        for _ in range(10):
            assert (await pool.feed(Watched(), IMAGE))[0] == IMAGE

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.serve)
            async with trio.open_nursery() as flows:
                for _ in range(5):
                    flows.start_soon(flow)
            for _ in bodies:
                item = await ledger.work.take("node-1", patience_s=lambda _: 60.0)
                assert item is not None and item.encoded is not None
            nursery.cancel_scope.cancel()
    assert most == 2
    assert priorities == {min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)}


@pytest.mark.parametrize("name", ["htj2k", "jpegls", "jxl-3"])  # the others take no longer than a turn of this thread
def test_an_encoder_lets_the_loop_run(name: str) -> None:
    image = Image(rows=1024, columns=1024).encode()  # one strip
    encode_checked(get_encoding(name), IMAGE, prove=False)  # what it imports is there
    shares = [_longest_share(lambda: encode_checked(get_encoding(name), image, prove=False)) for _ in range(3)]
    assert min(shares) < 0.5  # in each of three, where it does not let go; in one or two, where the machine is busy


def _longest_share(work: Callable[[], object]) -> float:
    """Do `work` in a thread; return for how much of its time this one was kept waiting at once."""
    thread = threading.Thread(target=work)
    longest_s, begin_s = 0.0, time.perf_counter()
    before_s = begin_s
    thread.start()
    while thread.is_alive():
        time.sleep(0)  # lets go of the interpreter's lock, and must get it back
        now_s = time.perf_counter()
        longest_s, before_s = max(longest_s, now_s - before_s), now_s
    return longest_s / (before_s - begin_s)
