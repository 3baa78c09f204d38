"""The link to the forker: starts it, has it start and end children, and starts it anew when it is gone. Blocks.

Refuses to do: deciding when.
"""

import contextlib
import socket
import subprocess
import sys
from threading import Lock
from typing import Final

from transfer.decoders.messages import END, ORDER, START, STATUS
from transfer.errors import CrashedError

FORKER: Final = "transfer.decoders.forker"
ANSWER_S: Final = 60.0  # the first answer waits for the libraries
GONE_STATUS: Final = 9  # as wait(2) tells of SIGKILL: the children of a forker that is gone


class ForkerLink:
    """One forker, which is `module` run as a program; for any thread."""

    def __init__(self, module: str = FORKER) -> None:
        self._module = module
        self._lock = Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Start the forker; does not wait until it has loaded the libraries."""
        with self._lock:
            self._open()

    def start(self, number: int, channel: socket.socket, memory: int) -> None:
        """Start child `number`, which gets its end of a channel, and the descriptor of its memory.

        Raises:
            CrashedError: it does not start.
        """
        order = ORDER.pack(START, number)
        with self._lock:
            if self._ask(order, channel.fileno(), memory) != START:  # it was gone: a new one
                self._close()
                if self._ask(order, channel.fileno(), memory) != START:
                    self._close()
                    raise CrashedError("the processes that decode images do not start")

    def end(self, number: int) -> int:
        """End child `number`, which was started, and return its status as wait(2) gives it."""
        with self._lock:
            answer = self._ask(ORDER.pack(END, number)) if self._channel is not None else b""
            if len(answer) != STATUS.size:
                self._close()  # if it lives: it knows nothing of this child, which then ends with it
                return GONE_STATUS
            status: int = STATUS.unpack(answer)[1]
            return status

    def close(self) -> None:
        """End the forker, and all children with it."""
        with self._lock:
            self._close()

    def _open(self) -> socket.socket:
        if self._channel is not None:
            return self._channel
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603  # this interpreter, a module of ours
                    [sys.executable, "-m", self._module, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except OSError as error:
                ours.close()
                raise CrashedError(f"the processes that decode images do not start: {error.strerror}") from error
        ours.settimeout(ANSWER_S)
        self._channel = ours
        return ours

    def _ask(self, order: bytes, *descriptors: int) -> bytes:
        """Return the answer, empty where there is none."""
        channel = self._open()
        with contextlib.suppress(OSError):  # the process died: no answer
            socket.send_fds(channel, [order], descriptors)
            return channel.recv(STATUS.size)
        return b""

    def _close(self) -> None:
        channel, process, self._channel, self._process = self._channel, self._process, None, None
        if channel is not None:
            channel.close()
        if process is not None:
            process.kill()
            process.wait()
