"""XML-RPC over TLS: one listener for each host of the pool, on addresses of its own and one port, as real members have.

Also takes disks' contents (`PUT /import_raw_vdi`), which is no part of XenAPI. A host that is dead accepts nobody.
"""

import http.server
import socketserver
import ssl
import threading
import xmlrpc.client
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.xen.server.calls import Calls
from tests.xen.server.database import Failure, Violation
from tests.xen.server.pool import Pool

BODY_MAX = 16 << 20


class Listener(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """One host's listener."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], wire: "Wire", host: str) -> None:
        super().__init__(address, Handler)
        self.wire, self.host = wire, host
        self.open: set[Any] = set()

    def get_request(self) -> tuple[Any, Any]:
        """Accept, and leave the handshake to the connection's own thread."""
        raw, address = super().get_request()
        raw.settimeout(120)
        secured = self.wire.context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        self.open.add(secured)
        return secured, address

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent: clients break off on purpose here."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener

    def setup(self) -> None:
        """Shake hands."""
        self.request.do_handshake()
        super().setup()

    def log_message(self, *_: Any) -> None:
        """Be silent."""

    def do_POST(self) -> None:
        """Answer a call."""
        length = int(self.headers["Content-Length"])
        assert length <= BODY_MAX
        values, method = xmlrpc.client.loads(self.rfile.read(length))
        wire = self.server.wire
        if self.server.host in wire.pool.dead:
            self.close_connection = True
            return
        answer = wire.answer(self.server.host, str(method), values)
        if answer is None:
            self.close_connection = True
            return
        self._reply(xmlrpc.client.dumps((answer,), methodresponse=True, allow_none=False).encode(), "text/xml")

    def do_PUT(self) -> None:
        """Take a disk's contents."""
        pool, words = self.server.wire.pool, dict(parse_qsl(urlsplit(self.path).query))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.host != pool.coordinator:
            address = pool.database.get("host", pool.coordinator)["address"]
            port = self.server.server_address[1]
            self.send_response(302)
            self.send_header("Location", f"https://{address}:{port}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if words["session_id"] not in pool.sessions:
            self.send_error(401)
            return
        self.server.wire.calls.before("import_raw_vdi")
        disk = pool.database.get("VDI", words["vdi"])
        fits = len(body) <= int(disk["virtual_size"]) and words["format"] == "raw"
        status: dict[str, Any] = {"status": "success", "progress": 1.0}
        if fits:
            pool.contents[words["vdi"]] = body
        else:
            status = {"status": "failure", "error_info": ["VDI_TOO_SMALL", words["vdi"], str(len(body))]}
        if words["task_id"] in pool.database.records["task"]:
            pool.database.set("task", words["task_id"], **status)
        self.server.wire.calls.after("import_raw_vdi")
        self._reply(b"", "text/plain")

    def _reply(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Wire:
    """The listeners of a pool. `drop`: methods whose answer is withheld, so often."""

    def __init__(self, pool: Pool, certificate: Path, key: Path) -> None:
        self.pool, self.calls = pool, Calls(pool)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.listeners: dict[str, Listener] = {}
        self.port = 0
        self.drop: dict[str, int] = {}

    def listen(self, host: str, address: str) -> None:
        """Open a host's listener; all have the port of the first."""
        listener = Listener((address, self.port), self, host)
        self.port = listener.server_address[1]
        self.listeners[host] = listener
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def cut(self, host: str) -> None:
        """A host dies: nobody is accepted there any more, and who is connected is cut off."""
        listener = self.listeners.pop(host)
        listener.shutdown()
        listener.server_close()
        for connection in list(listener.open):
            connection.close()

    def close(self) -> None:
        """Close every listener."""
        for host in list(self.listeners):
            self.cut(host)

    def answer(self, host: str, method: str, values: tuple[Any, ...]) -> dict[str, Any] | None:
        """Return what XenAPI answers; None where the answer is withheld."""
        try:
            value = self.calls.answer(host, method, values)
        except Violation as violation:
            self.pool.violations.append(violation.words)
            return {"Status": "Failure", "ErrorDescription": violation.words}
        except Failure as failure:
            return {"Status": "Failure", "ErrorDescription": failure.words}
        plain = method.removeprefix("Async.")
        if self.drop.get(plain, 0) > 0:
            self.drop[plain] -= 1
            return None
        return {"Status": "Success", "Value": value}
