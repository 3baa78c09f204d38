"""One session with a pool: logged in at the coordinator, followed through redirects and fail-over, always logged out.

All threads share one session; each call has a connection to itself. What happens when a call does not come back:
* not sent (no connection): asked again, at the other members too, until `fail_over_s` is over;
* SESSION_INVALID, HOST_IS_SLAVE: nothing was done; logged in anew, at the coordinator that is named, and asked again;
* broken afterwards: questions are asked again; for what changes something, UnreachableError: whoever planned it looks
  anew.
Refuses to do: tasks and events (`xen.xenapi.tasks`), printing the password.
"""

import http.client
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec
import XenAPI

from transfer import log
from transfer.errors import BusyError, FascicleError, UnreachableError
from xen.xenapi import errors
from xen.xenapi.transport import NotSentError, Transport

logger = log.get_logger()
BROKEN: Final = (OSError, http.client.HTTPException, xmlrpc.client.Error)
QUESTIONS: Final = ("get_", "assert_", "compute_", "from")
PAUSE_S: Final = 0.5
REDIRECTS_MAX: Final = 8
RENEWALS_MAX: Final = 5
ORIGINATOR: Final = "fascicle"
VERSION: Final = "1.0"


class Login(msgspec.Struct, frozen=True):
    """A session: the member that it is at, and its reference there."""

    url: str
    reference: str

    def __repr__(self) -> str:
        """Leave the reference out: it is as good as the password."""
        return f"Login({self.url!r})"


class PoolSession:
    """A context manager. `password` is called when it is needed, and its answer is not kept."""

    def __init__(
        self,
        members: Sequence[str],
        user: str,
        password: Callable[[], str],
        connect: Callable[[], Transport],
        *,
        fail_over_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._members = list(members)
        self._user, self._password, self._connect = user, password, connect
        self._fail_over_s, self._clock, self._sleep = fail_over_s, clock, sleep
        self._mutex = threading.Lock()
        self._free: dict[Login, list[XenAPI.Session]] = {}
        self._login: Login | None = None
        self._left: list[Login] = []
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._mutex:
            self._is_closed = True
            left = [*self._left, *([self._login] if self._login is not None else [])]
            self._login, self._left = None, []
            self._close_free()
        for login in left:
            self._log_out(login)

    @property
    def login(self) -> Login:
        """The session of now; logs in if there is none.

        Raises:
            UnauthorisedError: wrong user or password.
            UnreachableError: no member answers.
        """
        return self._logged_in(self._clock() + self._fail_over_s)

    def know_members(self, addresses: Iterable[str]) -> None:
        """Remember further members to ask when the coordinator is gone."""
        with self._mutex:
            port = urlsplit(self._members[0]).port
            for address in addresses:
                url = _url(address, port)
                if address and url not in self._members:
                    self._members.append(url)

    def call(self, method: str, *parameters: Any) -> Any:
        """Return the value of one call, such as `call("VM.get_record", reference)`; whole numbers go as text.

        Raises:
            UnreachableError: no answer; if the call changes something, it may have done so.
            FascicleError: the pool's error (`xen.xenapi.errors`).
        """
        deadline_s = self._clock() + self._fail_over_s
        renewals = 0
        while True:
            login = self._logged_in(deadline_s)
            try:
                return self._once(login, method, parameters)
            except XenAPI.Failure as failure:
                if failure.details[0] != errors.HOST_IS_SLAVE or renewals >= RENEWALS_MAX:
                    raise errors.wrap(method, failure.details) from failure
                self._leave(login, coordinator=failure.details[1])
                renewals += 1
            except _InvalidError as error:
                if renewals >= RENEWALS_MAX:
                    raise UnreachableError(f"the pool ends every session at once ({method})") from error
                self._leave(login)
                renewals += 1
            except NotSentError as error:
                self._leave(login, lost=True)
                self._pause(deadline_s, f"{login.url} does not answer: {error}", error)
            except BROKEN as error:
                self._leave(login, lost=True)
                if not method.rpartition(".")[2].startswith(QUESTIONS):
                    reason = f"{login.url} broke off during {method}, which may have been done: {_words(error)}"
                    raise UnreachableError(reason) from error
                self._pause(deadline_s, f"{login.url} broke off: {_words(error)}", error)

    def _once(self, login: Login, method: str, parameters: Sequence[Any]) -> Any:
        proxy = self._take(login)
        try:
            value = proxy.xenapi_request(method, tuple(parameters))
        except XenAPI.Failure:
            self._give_back(login, proxy)
            raise
        except xmlrpc.client.Fault as fault:
            proxy.transport.close()
            if fault.faultCode == 401:  # the client library's word for SESSION_INVALID with no login to repeat
                raise _InvalidError from fault
            raise
        except BaseException:
            proxy.transport.close()
            raise
        self._give_back(login, proxy)
        return value

    def _take(self, login: Login) -> XenAPI.Session:
        """Return a connection that no other thread uses."""
        with self._mutex:
            free = self._free.get(login)
            if free:
                return free.pop()
        return self._attached(login)

    def _give_back(self, login: Login, proxy: XenAPI.Session) -> None:
        with self._mutex:
            if self._login == login:
                self._free.setdefault(login, []).append(proxy)
                return
        proxy.transport.close()

    def _attached(self, login: Login) -> XenAPI.Session:
        """Return a connection of its own to a session that is open."""
        proxy = XenAPI.Session(login.url, transport=self._connect())
        proxy._session = login.reference
        return proxy

    def _logged_in(self, deadline_s: float) -> Login:
        with self._mutex:
            while self._login is None:
                if self._is_closed:
                    raise UnreachableError("the session with the pool was closed")
                failures = []
                for url in list(self._members):
                    try:
                        self._login = self._log_in(url)
                        break
                    except (NotSentError, BusyError, UnreachableError, *BROKEN) as error:  # may pass
                        failures.append(f"{url}: {_words(error)}")
                if self._login is None:
                    self._pause(deadline_s, f"no member of the pool answers: {'; '.join(failures)}", None)
            return self._login

    def _log_in(self, url: str) -> Login:
        """Log in at a member, or at the coordinator that it names."""
        for _ in range(REDIRECTS_MAX):
            proxy = XenAPI.Session(url, transport=self._connect())
            try:
                proxy.login_with_password(self._user, self._password(), VERSION, ORIGINATOR)
            except XenAPI.Failure as failure:
                if failure.details[0] != errors.HOST_IS_SLAVE:
                    raise errors.wrap("session.login_with_password", failure.details) from None
                url = _url(failure.details[1], urlsplit(url).port)
                continue
            except xmlrpc.client.Fault as fault:
                raise UnreachableError(f"{url} does not let anybody log in: {fault.faultString}") from None
            finally:
                proxy.transport.close()
            self._first(url)
            return Login(url, proxy._session)
        raise UnreachableError(f"the members of the pool name each other as coordinator, {url} last")

    def _first(self, url: str) -> None:
        self._members = [url, *(each for each in self._members if each != url)]

    def _leave(self, login: Login, *, coordinator: str = "", lost: bool = False) -> None:
        """Use this session no more. One that could not be asked may still be open: it is logged out in the end."""
        with self._mutex:
            if self._login == login:
                self._login = None
                self._close_free()
            if lost and login not in self._left:
                self._left.append(login)
            if coordinator:
                self._first(_url(coordinator, urlsplit(login.url).port))

    def _close_free(self) -> None:
        for proxy in (each for proxies in self._free.values() for each in proxies):
            proxy.transport.close()
        self._free.clear()

    def _pause(self, deadline_s: float, reason: str, cause: Exception | None) -> None:
        if self._clock() + PAUSE_S > deadline_s:
            raise UnreachableError(reason) from cause
        logger.info("pool_unreachable", reason=reason)
        self._sleep(PAUSE_S)

    def _log_out(self, login: Login) -> None:
        proxy = self._attached(login)
        proxy.last_login_method = "login_with_password"  # `logout` of the client library looks at it
        try:
            proxy.logout()
        except (XenAPI.Failure, NotSentError, *BROKEN, FascicleError) as error:
            logger.info("pool_logout_failed", member=login.url, reason=_words(error))
        finally:
            proxy.transport.close()


class _InvalidError(Exception):
    """The session has ended at the pool."""


def _url(address: str, port: int | None) -> str:
    host = f"[{address}]" if ":" in address and not address.startswith("[") else address
    return f"https://{host}:{port}" if port and ":" not in address else f"https://{host}"


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
