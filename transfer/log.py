"""Logs: one JSON line an event on standard error, a fixed event name and key/values, never patient data.

`configure` is called once by each process's entry point; everyone else asks structlog for a logger.
"""

import logging
import sys
from typing import Any, TextIO, cast

import structlog


class _StandardError:
    """Standard error as it is when an event is written; whoever replaces it meanwhile gets what follows."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(*, role: str, level: str = "info") -> None:
    """Send every event of this process to standard error as one JSON line that names `role`."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)


def get_logger(**values: Any) -> Any:
    """Return a logger that adds `values` to each event; it is configured at its first use, not when it is made."""
    return structlog.get_logger(**values)
