"""Payloads in aligned memory reach the disk as any others do, in one piece or many."""

import os
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from nodes.objectfile import HEADER_BYTES, Record
from nodes.store import Store
from transfer.buffers import Aligned, Buffers

MIB = 1 << 20


@pytest.mark.parametrize("sizes", [[1], [2047], [2048], [4096 - HEADER_BYTES], [820_000], [MIB], [MIB, 1], [MIB] * 3])
def test_an_object_of_aligned_frames_comes_back(tmp_path: Path, sizes: list[int]) -> None:
    buffers = Buffers(MIB, HEADER_BYTES)
    pieces = [os.urandom(size) for size in sizes]
    whole = b"".join(pieces)
    with Store.open(tmp_path, 0) as store:
        incoming = store.begin(blake3(whole).hexdigest(), len(whole), "raw")
        for piece in pieces:
            view = buffers.take(len(piece))
            view[:] = piece
            incoming.write(view)
        (record,) = store.commit([incoming])
        assert isinstance(record, Record)
        with store.read(record.object_id) as reader:
            assert b"".join(bytes(block) for block in reader) == whole


def test_memory_is_used_again_only_when_nobody_looks_at_it() -> None:
    buffers = Buffers(MIB, HEADER_BYTES)
    first = buffers.take(10)
    part = first[3:5]
    held = first.obj
    assert isinstance(held, Aligned)
    name = id(held)
    del held
    second = buffers.take(10)
    assert id(second.obj) != name
    del first
    assert id(buffers.take(10).obj) != name
    del part
    assert id(buffers.take(10).obj) == name


def test_memory_in_use_is_not_given_out_where_an_argument_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython 3.14 lends an argument where those before counted it: the same pieces have one reference less."""
    count = sys.getrefcount
    monkeypatch.setattr(sys, "getrefcount", lambda piece: count(piece) - 2)  # this function's own, and one less
    test_memory_is_used_again_only_when_nobody_looks_at_it()
