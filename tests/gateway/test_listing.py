"""A page of the listing is bounded, also in what is read for it."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, insert

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


def test_names_are_read_as_they_rest(connection: Connection) -> None:
    """To sort them, SQLite would write gigabytes to a file before it gave the first, for a page of 16 MB."""
    fill(connection)
    plans: list[str] = []

    @event.listens_for(connection, "before_cursor_execute")
    def explain(link: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "object_name" in statement:
            driver = link.connection.driver_connection
            assert driver is not None
            plans.extend(step[3] for step in driver.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    list_objects(connection, ObjectFilter())
    assert plans
    assert [step for step in plans if "TEMP B-TREE" in step] == []


def test_of_too_many_names_the_same_are_shown_each_time(connection: Connection) -> None:
    """Those whose digests are lowest, in the order of names."""
    fill(connection)
    rows = [
        {"object_id": bytes(32), "name_digest": f"0/{each:04}".encode(), "name": f"{9999 - each}"}
        for each in range(300)
    ]
    connection.execute(insert(schema.object_name), rows)
    (shown,) = list_objects(connection, ObjectFilter(object=bytes(32).hex())).objects
    assert shown.names == sorted(row["name"] for row in rows[: listing.NAMES_MAX])
