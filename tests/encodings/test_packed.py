"""`gradient-pack`: its bytes, and that what is compiled does what numpy does, with any bytes, within its arrays."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.encodings import packed
from transfer.encodings.codecs import Form, load_codec
from transfer.encodings.native import SLACK_BYTES, load_native
from transfer.errors import CorruptError

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "transfer" / "encodings" / "gradient_pack.c"
GUARD = 0xA5

compiled = pytest.mark.skipif(load_native() is None, reason="not compiled: no C compiler when this was installed")


@st.composite
def planes(draw):
    kind = draw(st.sampled_from(["<u1", "<u2"]))
    top = draw(st.integers(0, int(np.iinfo(kind).max)))
    columns = draw(st.one_of(st.integers(1, 40), st.integers(1020, 1030)))  # the compiled part works on 1024 at a time
    shape = draw(st.integers(1, 12)), columns
    numbers = np.random.default_rng(draw(st.integers(0, 1000)))
    return numbers.integers(0, top, shape, kind, endpoint=True)


def native_pack(plane):
    groups = plane.shape[0] * -(-plane.shape[1] // 8)
    room = np.full((groups + 1) // 2 + groups * 8 * plane.itemsize + SLACK_BYTES + 64, GUARD, np.uint8)
    made = load_native().pack(plane, room)
    assert (room[-64:] == GUARD).all()
    return room[:made].tobytes()


def native_unpack(stored, like):
    room = np.full(like.size + 64, GUARD, like.dtype)
    plane = room[: like.size].reshape(like.shape)
    sound = load_native().unpack(np.frombuffer(stored, np.uint8), plane)
    assert (room[like.size :] == np.full(64, GUARD, like.dtype)).all()
    return plane if sound else None


def numpy_unpack(stored, like):
    try:
        return packed.unpack(np.frombuffer(stored, np.uint8), like)
    except CorruptError:
        return None


def test_the_bytes_of_a_plane():
    """1 less 0 is 1, folded 2; then 0s; 3 less 1 is 2, folded 4; in the second row 5 - 3 - (3 - 1): 0."""
    plane = np.array([[1, 1, 1, 3], [1, 1, 1, 3]], "<u2")
    assert packed.pack(plane) == bytes([0x03, 0b0000, 0b0001, 0b1000])


def test_a_width_of_fifteen_is_stored_as_sixteen():
    plane = np.array([[0x2001]], "<u2")  # folded 0x4002: 15 bits
    assert packed.pack(plane) == bytes([15, 0, 1, *([0] * 12), 1, 0])
    assert np.array_equal(numpy_unpack(packed.pack(plane), plane), plane)


@compiled
@settings(max_examples=300, deadline=None)
@given(planes())
def test_the_compiled_part_does_what_numpy_does(plane):
    stored = packed.pack(plane)
    assert native_pack(plane) == stored
    assert np.array_equal(numpy_unpack(stored, plane), plane)
    assert np.array_equal(native_unpack(stored, plane), plane)


@compiled
@settings(max_examples=500, deadline=None)
@given(planes(), st.data())
def test_both_refuse_the_same_bytes(plane, data):
    """Any byte of the widths or groups changed, and any end cut off or added."""
    stored = bytearray(packed.pack(plane))
    for _ in range(data.draw(st.integers(0, 3))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    del stored[data.draw(st.integers(len(stored) - min(20, len(stored)), len(stored))) :]
    stored += data.draw(st.binary(max_size=2))
    ours, theirs = native_unpack(bytes(stored), plane), numpy_unpack(bytes(stored), plane)
    assert (ours is None) == (theirs is None)
    assert ours is None or np.array_equal(ours, theirs)


@pytest.mark.parametrize("native", [pytest.param(True, marks=compiled), False])
@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("kind", ["<u1", "<u2"])
def test_strips_come_back_with_either(native, components, kind, monkeypatch):
    if not native:
        monkeypatch.setattr(packed, "load_native", lambda: None)
    codec = load_codec("gradient-pack")
    strip = np.random.default_rng(7).integers(0, 200, (37, 45, components), kind)
    stored = codec.encode(strip)
    form = Form(37, 45, components, strip.itemsize)
    assert np.array_equal(codec.decode(stored, form), strip)
    for wrong in (stored[:-1], stored + b"\0", b"", b"\xff" * len(stored)):
        with pytest.raises(CorruptError, match="packed strip"):
            codec.decode(wrong, form)


@pytest.mark.parametrize("native", [pytest.param(True, marks=compiled), False])
def test_samples_may_begin_at_any_address(native, monkeypatch):
    if not native:
        monkeypatch.setattr(packed, "load_native", lambda: None)
    octets = np.random.default_rng(3).integers(0, 255, 2 * 30 * 50 + 1, np.uint8)
    strip = np.frombuffer(octets.data[1:], "<u2").reshape(30, 50, 1)
    codec = load_codec("gradient-pack")
    assert np.array_equal(codec.decode(codec.encode(strip), Form(30, 50, 1, 2)), strip)


SANITIZED = """
import sys
import numpy as np
from transfer.encodings import packed
from transfer.encodings.native import SLACK_BYTES, Native

native = Native(sys.argv[1])
numbers = np.random.default_rng(11)
refused = 0
for turn in range(1500):
    kind = ("<u1", "<u2")[turn % 2]
    shape = numbers.integers(1, 30), numbers.integers(1, 1100 if turn % 20 == 0 else 30)
    plane = numbers.integers(0, numbers.integers(1, np.iinfo(kind).max), shape, kind, endpoint=True)
    groups = plane.shape[0] * -(-plane.shape[1] // 8)
    room = np.empty((groups + 1) // 2 + groups * 8 * plane.itemsize + SLACK_BYTES, np.uint8)
    stored = room[: native.pack(plane, room)].copy()  # of its own, so that any byte read behind it is noticed
    out = np.empty_like(plane)
    assert native.unpack(stored, out) and np.array_equal(out, plane)
    changed = stored[: numbers.integers(0, len(stored) + 1)].copy() if turn % 3 else stored
    for _ in range(turn % 4 if len(changed) else 0):
        changed[numbers.integers(0, len(changed))] = numbers.integers(0, 256)
    refused += not native.unpack(changed, out)
assert refused > 500, refused
print("sound")
"""


def test_nothing_outside_the_arrays_is_touched(tmp_path):
    """Under the address and undefined-behaviour sanitizers, with whole, cut and changed strips."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path / "sanitized.so"
    options = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1", "-shared", "-fPIC")
    made = subprocess.run([compiler, *options, SOURCE, "-o", library], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"the compiler has no sanitizers: {made.stderr[-200:]}")
    runtime = subprocess.check_output([compiler, "-print-file-name=libasan.so"], text=True).strip()
    environment = {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    program = [sys.executable, "-c", SANITIZED, library]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.stdout == "sound\n", done.stderr[-2000:]
