"""The time of day as the catalogue and the API write it."""

from datetime import UTC, datetime


def utc_now() -> str:
    """Return now as ISO 8601 in UTC, to the millisecond: text that sorts."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
