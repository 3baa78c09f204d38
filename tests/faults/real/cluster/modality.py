"""A modality: sends images by C-STORE, one after the other, for ever, and tells of each status 0000 that it got.

An image that was not answered with success is sent again, on another association. Refuses to do: giving up.
"""

import itertools
import socket
import struct
import time
from typing import Final

from tests.dicom.build import CT, EXPLICIT
from tests.dimse.peer import associate_request, data_pdu, pdv, status_of, store_request
from tests.faults.real.cluster import images
from tests.faults.real.forks import Say

ANSWER_S: Final = 20.0
AGAIN_S: Final = 0.05
IMAGES: Final = 50  # of a series
ACCEPTED: Final = 2  # A-ASSOCIATE-AC
RESPONSE: Final = 4  # P-DATA-TF


def send_for_ever(port: int, first: int, pause_s: float, say: Say) -> None:
    """Send the series `first` and those after it, with a pause after each image."""
    for number in itertools.count(first):
        waiting = list(enumerate(map(images.data_set, images.make(number, IMAGES))))
        while waiting:
            try:
                _associate(port, number, waiting, pause_s, say)
            except (OSError, EOFError):
                time.sleep(AGAIN_S)


def _associate(port: int, number: int, waiting: list[tuple[int, bytes]], pause_s: float, say: Say) -> None:
    """Send what waits; each that is stored is told of, and waits no more."""
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(associate_request(((CT, [EXPLICIT]),)))
        if _receive(link)[0] != ACCEPTED:
            raise EOFError
        while waiting:
            index, data = waiting[0]
            request = store_request(images.instance_uid(number, index), message_id=index + 1)
            link.sendall(data_pdu(pdv(request, is_command=True)) + data_pdu(pdv(data)))
            answer = _receive(link)
            if answer[0] != RESPONSE or status_of(answer) != 0:
                raise EOFError
            del waiting[0]
            say({"key": images.data_set_name(data), "seed": number, "at_ns": time.monotonic_ns()})
            time.sleep(pause_s)


def _receive(link: socket.socket) -> tuple[int, bytes]:
    kind, length = struct.unpack(">BxL", _exactly(link, 6))
    return kind, _exactly(link, length)


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := link.recv(size - len(data))):
            raise EOFError
        data += more
    return data
