"""The forker: loads the libraries once, and forks a child when it is told to. `python -m transfer.decoders.forker FD`.

A process of its own, started anew and not forked, so that neither it nor a child has ever had a key, a connection or a
file of who wants images decoded. Children share its pages. It ends when its channel does, and they with it. Refuses to
do: decoding anything of a peer, answering for children.
"""

import os
import signal
import socket
import sys
from typing import Never

import numpy as np

from transfer import memory
from transfer.decoders import child
from transfer.decoders.messages import END, ORDER, START, STATUS
from transfer.encodings.codecs import CODECS, Form, load_codec


def main(descriptor: int) -> Never:
    """Serve the channel `descriptor`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of a terminal; whoever asks decides
    memory.tune()
    for encoding in CODECS:
        _warm(encoding)
    serve(socket.socket(fileno=descriptor))
    sys.exit(0)


def serve(channel: socket.socket) -> None:
    """Start and end children as told, until there is nobody who tells."""
    pids: dict[int, int] = {}
    while True:
        order, descriptors, _, _ = socket.recv_fds(channel, ORDER.size, 2)
        if not order:
            return
        what, number = ORDER.unpack(order)
        if what == START:
            pids[number] = _start(*descriptors)
            channel.send(START)
        else:
            channel.send(STATUS.pack(END, _end(pids.pop(number))))


def _start(channel: int, memory_descriptor: int) -> int:
    forker = os.getpid()
    pid = os.fork()
    if pid == 0:
        child.run(channel, memory_descriptor, forker)
    os.close(channel)
    os.close(memory_descriptor)
    return pid


def _end(pid: int) -> int:
    """End a child, if it has not ended, and return how it did."""
    os.kill(pid, signal.SIGKILL)  # its id is nobody else's before it has been waited for
    return os.waitpid(pid, 0)[1]


def _warm(encoding: str) -> None:
    """Take a strip there and back: children cannot load what is loaded late."""
    codec = load_codec(encoding)
    strip = np.arange(256, dtype="<u2").reshape(16, 16, 1)
    codec.decode(codec.encode(strip), Form(16, 16, 1, 2))


if __name__ == "__main__":
    main(int(sys.argv[1]))
