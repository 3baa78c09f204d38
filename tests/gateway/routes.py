"""The routes of the gateway's application, read from itself."""

from types import SimpleNamespace
from typing import Any

from litestar.routes import HTTPRoute

from gateway.http import make_app


def routes() -> list[tuple[str, str, str]]:
    """Return method, path and operation of every route that the application has, whoever added it."""
    nothing: Any = SimpleNamespace(is_revoked=lambda _: False)
    app = make_app(
        uploads=nothing,
        database=nothing,
        nodes=nothing,
        metrics=nothing,
        membership=nothing,
        audit=nothing,
        repairer=nothing,
        upkeep=nothing,
        request_bytes_max=1,
    )
    return sorted(
        (str(method), route.path_format, str(handler.opt.get("operation", "")))
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods - {"OPTIONS"}
    )
