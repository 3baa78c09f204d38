"""Children that decode: the same originals as here, and whatever ends a child costs one object and one log line."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog

from tests.decoders import faulty
from tests.encodings.images import Image
from transfer.decoders import pool
from transfer.decoders.messages import how_it_ended, said
from transfer.decoders.pool import Pool, open_decoders
from transfer.encodings import IMAGE_ENCODINGS, OpenDecoder, get_encoding
from transfer.encodings.codecs import Form
from transfer.errors import BusyError, CorruptError

FORM = Form(4, 5, 1, 2)
NAME = "ab" * 32
IMAGES = [
    Image(rows=60, columns=50, samples=3, bits=8, stored=8),
    Image(rows=700, columns=1024, frames=3, signed=True, behind=bytes(40)),  # strips of the greatest length
    Image(rows=33, columns=7, stray=True),
]


@pytest.fixture(scope="module")
def open_decoder() -> Iterator[OpenDecoder]:
    with open_decoders(2) as opened:
        opened.start()
        yield opened.open_decoder


@pytest.fixture
def bad(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A pool whose children have faults; one child, unless told otherwise."""
    made = Pool(getattr(request, "param", 1), forker="tests.decoders.faulty")
    made.start()
    yield made
    made.close()


def ask(of: Pool, wish: bytes) -> bytes:
    return bytes(of.decode(NAME, "jxl-1", memoryview(wish), FORM))


def children() -> list[int]:
    """Return the ids of the children of all forkers of this process."""
    own = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    forkers = [pid for pid in own if b"tests.decoders.faulty" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    found = (Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in forkers)
    return [int(pid) for each in found for pid in each]


@pytest.mark.parametrize("name", IMAGE_ENCODINGS)
@pytest.mark.parametrize("image", IMAGES, ids=["colour", "long", "odd"])
def test_originals_come_back_through_children(open_decoder: OpenDecoder, name: str, image: Image) -> None:
    data = image.encode()
    stored = bytes(get_encoding(name).encode(data))
    decoder = open_decoder(name, len(data), NAME)
    assert b"".join(decoder.feed(stored)) == data
    decoder.finish()
    decoder = open_decoder(name, len(data), NAME)
    with pytest.raises(CorruptError):
        assert b"".join(decoder.feed(stored[:-9] + bytes(9))) != data or decoder.finish()
        raise CorruptError("other bytes, which the object's id tells")


def test_many_threads_share_few_children(open_decoder: OpenDecoder) -> None:
    images = [Image(rows=50, columns=60, seed=seed).encode() for seed in range(40)]
    stored = [bytes(get_encoding("gradient-zstd").encode(image)) for image in images]

    def decode(number: int) -> bytes:
        return b"".join(open_decoder("gradient-zstd", len(images[number]), NAME).feed(stored[number]))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(decode, range(len(images)))) == images


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (b"segfault", "Segmentation fault"),
        (b"abort", "Aborted"),
        (b"spin", "more than 5 s of processor time"),  # one, in the test's forker
        (b"memory", "no memory within its limit"),
        (b"library memory", "Aborted"),
        (b"exit", "exit code 7"),
        (b"unknown error", "exit code 1"),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_a_fault_costs_one_object_and_is_told(bad: Pool, fault: bytes, reason: str) -> None:
    assert ask(bad, b"good") == b"\4\0" * 20
    (before,) = children()
    with structlog.testing.capture_logs() as logs, pytest.raises(CorruptError, match=reason):
        ask(bad, fault)
    (line,) = logs
    assert (line["event"], line["object_id"], line["reason"]) == ("decoder_ended", NAME, reason)
    assert ask(bad, b"good") == b"\4\0" * 20
    (after,) = children()
    assert after != before


def test_a_child_that_never_answers_is_ended(bad: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ANSWER_S", 0.3)
    with pytest.raises(CorruptError, match="exit code 7"):
        ask(bad, b"exit")  # the next child has the new limit
    with pytest.raises(CorruptError, match="Killed"):
        ask(bad, b"sleep")
    assert ask(bad, b"good") == b"\4\0" * 20


def test_a_child_can_do_nothing_but_answer(bad: Pool) -> None:
    with pytest.raises(CorruptError, match=f"{NAME}: $"):
        ask(bad, b"probe")
    assert not Path("/tmp/made-by-a-decoder").exists()
    (child,) = children()
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines())
    assert (status["NoNewPrivs"], status["CapEff"]) == ("1", "0000000000000000")
    if os.geteuid() == 0:
        assert status["Uid"].split() == ["65534"] * 4
        assert len(os.listdir(f"/proc/{child}/fd")) == 1
    assert set(faulty.FORBIDDEN) >= {"open a file", "open a socket", "start a process"}


def test_what_a_child_says_is_one_short_line(bad: Pool) -> None:
    with pytest.raises(CorruptError) as told:
        ask(bad, b"junk")
    assert told.value.message.startswith(f"{NAME}: a b")
    assert told.value.message.isprintable()
    assert len(told.value.message) < 300


def test_a_child_that_ended_while_idle_costs_nothing(bad: Pool) -> None:
    for _ in range(5):
        (child,) = children()
        os.kill(child, signal.SIGKILL)
        while ") Z" not in Path(f"/proc/{child}/stat").read_text():
            time.sleep(0.01)
        assert ask(bad, b"good") == b"\4\0" * 20


@pytest.mark.parametrize("bad", [2], indirect=True)
def test_a_forker_that_ended_is_started_anew_and_takes_its_children_along(bad: Pool) -> None:
    old = children()
    assert len(old) == 2
    own = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    (forker,) = (pid for pid in own if b"tests.decoders.faulty" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(int(forker), signal.SIGKILL)
    while any(Path(f"/proc/{pid}").exists() for pid in old):
        time.sleep(0.01)
    assert ask(bad, b"good") == b"\4\0" * 20


def test_children_that_keep_ending_are_started_more_and_more_slowly(bad: Pool) -> None:
    assert [pool.rest_s(ended) for ended in (1, 3, 4, 5, 6, 30)] == [0, 0, 0.1, 0.2, 0.4, 5]
    for _ in range(pool.ENDED_AT_ONCE + 1):
        with pytest.raises(CorruptError):
            ask(bad, b"exit")
    with pytest.raises(BusyError):
        ask(bad, b"good")
    time.sleep(pool.REST_S)
    assert ask(bad, b"good") == b"\4\0" * 20


@pytest.mark.parametrize("bad", [2], indirect=True)
def test_others_go_on_while_one_is_busy_or_ended(bad: Pool) -> None:
    with ThreadPoolExecutor(1) as threads:
        busy = threads.submit(ask, bad, b"spin")
        for _ in range(pool.ENDED_AT_ONCE):
            with pytest.raises(CorruptError):
                ask(bad, b"exit")
        assert ask(bad, b"good") == b"\4\0" * 20
        assert isinstance(busy.exception(), CorruptError)


def test_words_for_how_a_child_ended() -> None:
    assert how_it_ended(signal.SIGPROF, 5) == "more than 5 s of processor time"
    assert how_it_ended(signal.SIGSEGV | 0x80, 5) == "Segmentation fault"
    assert how_it_ended(3 << 8, 5) == "no memory within its limit"
    assert said(b"\1" + b"x" * 5000) == "x" * 199
