"""Children that are forked from a warmed process: a start costs about 2 ms where a Python of its own costs 500.

A child says what it did in messages, which its parent gets even when the child was killed right after; sending one is
no call on a file, so a sweep over calls on files does not meet it. The parent must have no threads. Refuses to do:
deciding when a child dies.
"""

import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Final

from transfer.errors import FascicleError

ENDED, CRASHED, HUNG = 0, 3, -1  # exit codes
MESSAGE_BYTES: Final = 1 << 16
Message = dict[str, Any]
Say = Callable[[Message], None]
Work = Callable[[Say], None]


class Child:
    """A running child; `end` it."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self._channel = channel

    def go(self) -> None:
        """Let a child that is held begin."""
        self._channel.send(b"go")

    def hear(self, within_s: float) -> Message | None:
        """Return the next message; None when there is none in time, or no more at all."""
        self._channel.settimeout(max(within_s, 1e-6))
        try:
            data = self._channel.recv(MESSAGE_BYTES)
        except (TimeoutError, BlockingIOError):
            return None
        return json.loads(data) if data else None

    def hear_all(self, within_s: float) -> Iterator[Message]:
        """Give out every message until the child has ended or the time is over."""
        deadline_s = time.monotonic() + within_s
        while (message := self.hear(deadline_s - time.monotonic())) is not None:
            yield message

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self, within_s: float = 10.0) -> int:
        """Return the exit code (the negative signal where one killed it); HUNG when it had to be killed for that."""
        deadline_s = time.monotonic() + within_s
        hung = False
        while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if not hung and time.monotonic() > deadline_s:
                hung = True
                self.kill()
            time.sleep(0.0005)
        self._channel.close()
        return HUNG if hung else os.waitstatus_to_exitcode(found[1])


def fork(work: Work, *, held: bool = False) -> Child:
    """Run `work` in a child, at once or when told to `go`.

    The child ends with ENDED (also when an error of ours ended it, which it then says) or CRASHED, with the traceback.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    silence = os.open(os.devnull, os.O_WRONLY)  # here: in the child strace would see it, or not yet
    pid = os.fork()
    if pid:
        theirs.close()
        os.close(silence)
        return Child(pid, ours)
    code = CRASHED
    try:
        ours.close()
        os.dup2(silence, 1)  # the log of what is broken on purpose
        _run(work, theirs, held=held)
        code = ENDED
    finally:
        os._exit(code)


def _run(work: Work, channel: socket.socket, *, held: bool) -> None:
    def say(message: Message) -> None:
        channel.send(json.dumps(message).encode())

    if held:
        channel.recv(8)
    try:
        work(say)
    except FascicleError as error:
        say({"ended": error.code, "message": error.message})
    except BaseException:
        say({"crashed": traceback.format_exc()[-4000:]})
        raise
