"""HTTP as a target: a real gateway, and a connection over TLS for each input, with a certificate of one of the roles.

Whose it is follows from the input, so that it is the same again. What must hold: an answer that is none of the
gateway's own faults, or the end of the connection, in time; and the gateway serves the next caller.
"""

import contextlib
import socket
import ssl
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.gateway.kit import Gateway, Identities, settings

CALLERS = ("ws-1", "ws-2", "op-1", "admin-1", "node-1", "janitor-1", None)  # the last shows no certificate
FAULTS = {500, 501, 502}
SILENCE_S = 10.0


@contextlib.contextmanager
def open_http() -> Iterator[Callable[[bytes], None]]:
    """Run a gateway, and yield the target; at the end the gateway must have had no fault of its own."""
    with tempfile.TemporaryDirectory() as folder:
        identities = Identities(Path(folder) / "identities")
        gateway = Gateway(
            identities,
            settings(identities, Path(folder) / "data", header_timeout_s=0.1, body_timeout_s=0.1, keep_alive_s=1),
        )
        contexts = [identities.context(name) for name in CALLERS if name is not None]
        contexts.append(ssl.create_default_context(cafile=str(identities["ws-1"] / "ca.pem")))
        try:
            yield lambda data: _send(gateway.port, contexts[zlib.crc32(data) % len(contexts)], data)
            text = gateway.client(None).get("/metrics").text
            assert 'status="500"' not in text
        finally:
            gateway.stop()


def _send(port: int, context: ssl.SSLContext, data: bytes) -> None:
    raw = socket.create_connection(("127.0.0.1", port), timeout=SILENCE_S)
    answer = b""
    with (
        contextlib.suppress(ConnectionError, ssl.SSLError),  # to be hung up on is an answer
        context.wrap_socket(raw, server_hostname="127.0.0.1") as flow,
    ):
        flow.sendall(data)
        flow.sendall(b"\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while piece := flow.recv(65536):
            answer += piece
    assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:100]
    assert not answer or int(answer[9:12]) not in FAULTS, answer[:400]
