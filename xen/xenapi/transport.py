"""XML-RPC over TLS with a time limit, where a request is never sent twice.

The standard transport repeats a request when the connection breaks, which could clone a machine a second time; here the
caller is told instead whether the request may have been carried out. A connection that was idle is not used again.
Refuses to do: deciding what is repeated (`xen.xenapi.session`).
"""

import http.client
import ssl
import time
import xmlrpc.client
from pathlib import Path
from typing import Any, Final

from transfer.errors import SettingsError

IDLE_MAX_S: Final = 10.0
CONNECT_MAX_S: Final = 10.0  # a host that is gone must not hold up asking the others


class NotSentError(Exception):
    """The connection could not be made, so the request was certainly not carried out."""


class Transport(xmlrpc.client.SafeTransport):
    """One connection with one host."""

    def __init__(self, context: ssl.SSLContext, timeout_s: float) -> None:
        super().__init__(context=context)
        self._tls = context
        self._timeout_s = timeout_s
        self._used_s = 0.0
        self._open: http.client.HTTPSConnection | None = None

    def add_extra_header(self, key: str, value: str) -> None:
        """Do nothing: XenAPI.Session asks for it when tracing is on."""

    def request(self, host: Any, handler: str, request_body: Any, verbose: bool = False) -> Any:
        """Send one request, once.

        Raises:
            NotSentError: there is no connection.
            OSError, http.client.HTTPException, xmlrpc.client.Error: it broke afterwards.
        """
        return self.single_request(host, handler, request_body, verbose)

    def make_connection(self, host: Any) -> http.client.HTTPSConnection:
        """Return a connection that is open.

        Raises:
            NotSentError: it cannot be opened.
        """
        if self._open is not None and time.monotonic() - self._used_s > IDLE_MAX_S:
            self.close()
        if self._open is None:
            name, _, _ = self.get_host_info(host)
            self._open = open_connection(name, self._tls, self._timeout_s)
        self._used_s = time.monotonic()
        return self._open

    def close(self) -> None:
        """Close the connection; the next request makes another."""
        if self._open is not None:
            self._open.close()
            self._open = None


def open_connection(address: str, context: ssl.SSLContext, timeout_s: float) -> http.client.HTTPSConnection:
    """Return a connection with `address` (HOST or HOST:PORT) that is open, and has `timeout_s` for each answer.

    Raises:
        NotSentError: it cannot be opened.
    """
    connection = http.client.HTTPSConnection(address, timeout=min(timeout_s, CONNECT_MAX_S), context=context)
    try:
        connection.connect()
    except OSError as error:
        raise NotSentError(str(error) or type(error).__name__) from error
    connection.sock.settimeout(timeout_s)
    return connection


def tls_context(certificates: str, beside: Path) -> ssl.SSLContext:
    """Return a context that trusts these certificates (PEM, of the hosts or their authority), or the system's.

    Raises:
        SettingsError: the file cannot be used.
    """
    if not certificates:
        return ssl.create_default_context()
    path = beside / Path(certificates).expanduser()
    try:
        context = ssl.create_default_context(cafile=str(path))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"`xenapi.certificates`: {path} cannot be used: {error}") from error
    return context
