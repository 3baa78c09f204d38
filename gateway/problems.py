"""Errors as answers: each error of ours with its own HTTP status, everything else without a word about the inside.

Refuses to do: patient data; an error's text never holds any.
"""

import math
from collections.abc import Callable
from typing import Any

from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException

from transfer.api import Problem
from transfer.errors import FascicleError, UnauthorisedError
from transfer.log import get_logger

AnyRequest = Request[Any, Any, Any]
TEXT_MAX = 512
GONE = "client disconnected prematurely"  # what the framework calls a server error


def of_ours(_: AnyRequest, error: FascicleError) -> Response[Problem]:
    """Answer an error of the tree."""
    problem = Problem(code=error.code, message=error.message, retryable=error.retryable)
    pause = {"Retry-After": str(math.ceil(error.retry_after_s))} if error.retry_after_s else None
    return Response(problem, status_code=error.http_status, media_type=MediaType.JSON, headers=pause)


def of_http(_: AnyRequest, error: HTTPException) -> Response[Problem]:
    """Answer what the framework refused: no such path, a body that does not fit, a body that is too large."""
    status = 400 if error.detail == GONE else error.status_code  # nobody hears it; it must not count as our fault
    code = "not_stored" if status == 404 else "protocol"
    extra = error.extra if isinstance(error.extra, list) else []
    detail = "; ".join([error.detail, *(str(item.get("message", "")) for item in extra if isinstance(item, dict))])
    problem = Problem(code=code, message=detail[:TEXT_MAX], retryable=False)
    return Response(problem, status_code=status, media_type=MediaType.JSON)


def of_unreadable(_: AnyRequest, error: UnicodeDecodeError | RecursionError) -> Response[Problem]:
    """Answer text that is not UTF-8 or is nested too deep: Python's own errors, which the framework does not know."""
    what = "is nested too deep" if isinstance(error, RecursionError) else "holds text that is not UTF-8"
    problem = Problem(code="protocol", message=f"the request {what}", retryable=False)
    return Response(problem, status_code=400, media_type=MediaType.JSON)


def of_others(request: AnyRequest, error: Exception) -> Response[Problem]:
    """Answer a mistake of this program: logged whole, told as nothing more than that."""
    get_logger().error("request_failed", path=request.scope["path"], exc_info=error)
    problem = Problem(code="internal", message="the gateway failed; its log says why", retryable=True)
    return Response(problem, status_code=500, media_type=MediaType.JSON)


def make_handlers(on_refused: Callable[[AnyRequest, UnauthorisedError], None]) -> Any:
    """Return what answers which error; `on_refused` is told of everybody who may not do what was asked."""

    def of_refused(request: AnyRequest, error: UnauthorisedError) -> Response[Problem]:
        on_refused(request, error)
        return of_ours(request, error)

    return {
        UnauthorisedError: of_refused,
        FascicleError: of_ours,
        HTTPException: of_http,
        UnicodeDecodeError: of_unreadable,
        RecursionError: of_unreadable,
        Exception: of_others,
    }
