"""A child under strace: which calls it makes, and a fault at one of them.

Refuses to do: judging what is left (`tests.faults.real.sweep`).
"""

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.real.forks import ENDED, Child, Message, Work, fork

CALLS: Final = (
    "write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,syncfs,sync_file_range,rename,renameat,renameat2,"
    "unlink,unlinkat,truncate,ftruncate,fallocate,creat,open,openat,mkdir,mkdirat,link,linkat,symlinkat"
)
KILLS: Final = ("kill", "cut")
LINE: Final = re.compile(r"^(\d+) +(\w+)\((.*)", re.MULTILINE)
FLUSH: Final = re.compile(r"\b(?:fsync|fdatasync|syncfs)\((\d+)\)")
OPENED: Final = re.compile(r"\bopenat\(.*= (\d+)$|resumed.*= (\d+)$")
CHILD_S: Final = 30.0


class Point(NamedTuple):
    """One fault: which, at the how-many-th call of a name."""

    fault: str
    call: str
    number: int


class Ended(NamedTuple):
    """What became of a child: what it said, how it ended, and whether the fault happened."""

    messages: list[Message]
    code: int
    fired: bool = False
    flushed_again: bool = False

    def promised(self) -> dict[str, int]:
        """Return its promises: names and seeds."""
        return {message["key"]: message["seed"] for message in self.messages if "key" in message}

    def problems(self, *, killed: bool = False) -> list[str]:
        """Return what a child may not do: crash, hang, or say itself that something is wrong."""
        found = [message["problem"] for message in self.messages if "problem" in message]
        if self.code != ENDED and not killed:
            crashes = [message["crashed"] for message in self.messages if "crashed" in message]
            found.append(f"ended with {self.code}: {crashes}")
        if self.flushed_again:
            found.append(
                "a file whose flush had failed was flushed again: the kernel has forgotten what it was to write"
            )
        return found

    def refused(self) -> list[str]:
        """Return what was refused twice: no error that came once may do that."""
        return [f"refused again: {message['refused']}" for message in self.messages if "refused" in message]

    def errors(self) -> list[str]:
        """Return the error of ours that ended it."""
        return [f"{message['ended']}: {message['message']}" for message in self.messages if "ended" in message]


def finish(child: Child) -> Ended:
    """Hear a child to its end."""
    messages = list(child.hear_all(CHILD_S))
    return Ended(messages, child.end())


def run(work: Work) -> Ended:
    """Run `work` in a child."""
    return finish(fork(work))


def run_traced(work: Work, log: Path, point: Point | None) -> Ended:
    """Run `work` under strace, with the fault of `point`; `log` gets the trace."""
    child = fork(work, held=True)
    words = ["strace", "-f", "-o", str(log), "-p", str(child.pid), "-e"]
    words += [f"trace={CALLS}"] if point is None else [f"trace={point.call},openat", "-e", _injection(point)]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as tracer:
        attached = tracer.stderr is not None and b"attached" in tracer.stderr.readline()
        if attached:
            child.go()
        else:
            child.kill()
        ended = finish(child)
    text = log.read_text()
    fired = "(INJECTED)" in text or "killed by SIGKILL" in text
    return ended._replace(fired=fired, flushed_again=flushed_again(text))


def flushed_again(log: str) -> bool:
    """Tell whether a descriptor whose flush failed was flushed again before it was another file's."""
    failed: set[str] = set()
    for line in log.splitlines():
        if (flush := FLUSH.search(line)) is not None:
            if flush[1] in failed:
                return True
            if "(INJECTED)" in line:
                failed.add(flush[1])
        elif (opened := OPENED.search(line)) is not None:
            failed.discard(opened[1] or opened[2])
    return False


def _injection(point: Point) -> str:
    what = "signal=KILL" if point.fault in KILLS else f"error={point.fault}"
    return f"inject={point.call}:{what}:when={point.number}"


def count_calls(log: str, *, lasting: bool) -> Counter[str]:
    """Return up to which number each call is made by any thread; of `open`, the `lasting` ones make a file."""
    numbers: Counter[tuple[str, str]] = Counter()
    found: Counter[str] = Counter()
    for thread, call, arguments in LINE.findall(log):
        numbers[thread, call] += 1
        if not (lasting and call.startswith("open") and "O_CREAT" not in arguments):
            found[call] = max(found[call], numbers[thread, call])
    return found
