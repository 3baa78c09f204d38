"""What is read from /proc: counters of a device and of TCP, trees of processes, and that nothing names the host."""

import os
import platform
import subprocess
import sys

from experiments import machine, processes
from experiments.sampling import Counts, parse_device, parse_tcp, wire_bytes

DEVICES = """\
Inter-|   Receive                                      |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0
fxp1n0ct: 500 6 0 0 0 0 0 0 700 8 0 0 0 0 0 0
"""
SNMP = "Ip: A B\nIp: 1 2\nTcp: RtoMin OutSegs RetransSegs InErrs\nTcp: 200 9000 17 0\n"


def test_counters_are_those_of_the_device() -> None:
    assert parse_device(DEVICES, "fxp1n0ct") == (700, 8, 500, 6)
    assert parse_device(DEVICES, "lo") == (3, 4, 1, 2)
    assert parse_device(DEVICES, "gone") == (0, 0, 0, 0)
    assert parse_tcp(SNMP) == (9000, 17)


def test_headers_of_packets_that_are_cut_later_are_counted() -> None:
    before, after = Counts(0, 0, 0, 0, 0), Counts(145_000, 10, 0, 100, 0)
    assert wire_bytes(before, after) == 145_000 + 90 * 66
    assert wire_bytes(before, Counts(1000, 10, 0, 4, 0)) == 1000


def test_a_tree_holds_grandchildren_and_their_time() -> None:
    inner = "print(flush=True); input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the inner one runs: before it has become a Python it holds next to nothing
        found = processes.tree([process.pid])
        assert len(found) == 2
        assert found[0] == process.pid
        assert processes.resident_peak_bytes(found[1]) > 1 << 20
    assert processes.tree([process.pid]) == [process.pid]
    assert processes.processor_s([os.getpid()]) > 0
    assert processes.resident_peak_bytes(process.pid) == 0


def test_a_machine_is_described_without_its_name() -> None:
    found = machine.describe()
    assert found["kernel"] == platform.release()
    assert platform.node() not in str(found)
