"""A page of the listing is bounded, also in what is read for it."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, insert

from gateway import listing, schema
from gateway.listing import ObjectFilter, list_objects

OBJECTS, NAMES, LENGTH = 40, 200, 4000  # 32 MB of names, twice what a page has room for


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path / 'catalogue.db'}")
    schema.metadata.create_all(engine)
    with engine.begin() as link:
        yield link
    engine.dispose()


def fill(connection: Connection) -> dict[str, list[str]]:
    """Write objects with many long names; return them by object."""
    written: dict[str, list[str]] = {}
    for number in range(OBJECTS):
        object_id = bytes([number]) * 32
        names = [f"{number:03}/{each:05}".ljust(LENGTH, "x") for each in range(NAMES)]
        sizes = {"size_bytes": 1, "stored_bytes": 1, "encoding": "raw", "identity": b"{}", "visible": True}
        connection.execute(insert(schema.object_), [{"object_id": object_id} | sizes])
        rows = [{"object_id": object_id, "name_digest": each[:9].encode(), "name": each} for each in names]
        connection.execute(insert(schema.object_name), rows)
        written[object_id.hex()] = names
    return written


def test_names_that_no_page_has_room_for_are_not_read_for_it(connection: Connection) -> None:
    written = fill(connection)
    tracemalloc.start()
    first = list_objects(connection, ObjectFilter())
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1.3 * listing.PAGE_NAMES_BYTES
    pages, seen = [first], dict[str, list[str]]()
    while (after := pages[-1].next) is not None:
        pages.append(list_objects(connection, ObjectFilter(after=after)))
    for page in pages:
        seen |= {each.object_id: each.names for each in page.objects}
    assert seen == written
    assert 2 <= len(pages) <= 3
