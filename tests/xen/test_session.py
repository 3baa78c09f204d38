"""The session with a pool: redirects, expiry, broken answers, fail-over; one login, one logout, nothing done twice."""

import threading
from collections import Counter

import msgspec
import pytest
import trio

from tests.xen.kit import Site
from transfer.errors import BusyError, FascicleError, UnreachableError
from xen import lease
from xen.observed import Stage


def asks(site: Site, host: int) -> str:
    address = site.pool.database.get("host", site.hosts[host])["address"]
    return f"https://{address}:{site.wire.port}"


async def test_one_session_is_logged_in_and_out(site: Site) -> None:
    await site.apply(site.file(count=2))
    assert site.pool.calls["session.login_with_password"] == 1
    assert site.pool.calls["session.logout"] == 1
    assert site.pool.database.records["session"] == {}


async def test_it_is_logged_out_also_when_it_fails(site: Site) -> None:
    site.pool.inject("VM.start_on", ["INTERNAL_ERROR"], times=99)
    with pytest.raises(FascicleError):
        await site.apply(site.file(count=1))
    assert site.pool.calls["session.logout"] == 1
    assert not site.pool.sessions


async def test_a_supporter_says_who_coordinates(site: Site) -> None:
    file = site.file(count=1)
    assert file.xenapi is not None
    await site.apply(
        msgspec.structs.replace(file, xenapi=msgspec.structs.replace(file.xenapi, coordinator=asks(site, 2)))
    )
    site.assert_exactly(1)
    assert site.pool.calls["session.login_with_password"] == 2  # the first was answered HOST_IS_SLAVE


async def test_sessions_that_expire_all_the_time(site: Site) -> None:
    site.pool.session_calls_max = 25
    done: Counter[str] = Counter()
    site.wire.calls.after = lambda call: done.update([call])
    await site.apply(site.file(count=3))
    site.assert_exactly(3)
    assert site.pool.calls["session.login_with_password"] > 3
    assert done["VM.clone"] == 3


async def test_a_session_that_is_never_good_ends_by_itself(site: Site) -> None:
    site.pool.inject("VM.get_all_records", ["SESSION_INVALID", "x"], times=99)
    with pytest.raises(UnreachableError, match="ends every session at once"):
        await site.apply(site.file(count=1))


@pytest.mark.parametrize("call", ["VM.clone", "VM.set_other_config", "VDI.create", "VM.start_on"])
async def test_an_answer_that_is_lost_is_no_reason_to_do_it_twice(site: Site, call: str) -> None:
    site.wire.drop[call] = 1
    await site.apply(site.file(count=2))
    assert site.wire.drop[call] == 0
    tasks = site.pool.database.records["task"]  # nobody was told of the one whose answer was lost
    assert len(tasks) == (call in ("VM.clone", "VM.start_on"))
    site.pool.database.forget("task")
    site.assert_exactly(2)


async def test_an_answer_to_a_question_that_is_lost_is_asked_again(site: Site) -> None:
    site.wire.drop["VM.get_record"] = 2
    site.wire.drop["event.from"] = 2
    report = await site.apply(site.file(count=2))
    site.assert_exactly(2)
    assert report.rounds == 1


async def test_another_coordinator_is_followed(site: Site) -> None:
    """`designate_new_master` while a run is at work: sessions, tasks and tokens are forgotten."""
    site.pool.delays.clone, site.pool.delays.guest = 0.05, 0.05
    calls = site.wire.calls
    turns = iter([site.hosts[1], site.hosts[2], site.hosts[0]])

    def after(method: str) -> None:
        if method in ("VM.clone", "VDI.create", "VM.start_on") and (host := next(turns, None)):
            site.pool.fail_over(host)

    calls.after = after
    await site.apply(site.file(count=3))
    site.assert_exactly(3)


async def test_a_coordinator_that_dies_is_succeeded(site: Site) -> None:
    """Its address is dead; the others are known since the pool was observed."""
    await site.apply(site.file(count=1))
    site.pool.database.set("VM", site.pool.database.pick("VM", name_label="node-01")[0], resident_on=site.hosts[1])
    died = threading.Event()

    def after(method: str) -> None:
        if method == "VM.clone" and not died.is_set():
            died.set()
            threading.Thread(target=die, daemon=True).start()

    def die() -> None:
        site.kill_host(site.hosts[0])
        site.pool.fail_over(site.hosts[1])

    site.wire.calls.after = after
    await site.apply(site.file(count=3))
    assert len(site.nodes()) == 3
    assert {each["resident_on"] for each in site.nodes().values()} <= set(site.hosts[1:])


async def test_two_runs_at_once_make_no_more_than_one(site: Site) -> None:
    """The second waits at the pool for the first, whose process it knows to be alive, and finds nothing to do."""
    reports = {}

    async def run(owner: str) -> None:
        reports[owner] = await site.apply(site.file(count=4, watch={"lock_wait_s": 30.0}), owner=owner)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "other-machine/1/1")
        nursery.start_soon(run, "another-machine/2/2")
    site.assert_exactly(4)
    assert sorted(report.steps.get("make", 0) for report in reports.values()) == [0, 4]


async def test_a_run_that_does_not_wait_says_who_is_at_work(site: Site) -> None:
    file = site.file(count=1)
    said = pytest.raises(BusyError, match=r"another run is at work at this pool: somewhere/7/7")
    with site.backend(file) as first, first.open_lock("somewhere/7/7", 0.0), said:
        await site.apply(file)
    await site.apply(file)
    site.assert_exactly(1)


async def test_a_holder_that_is_dead_is_overtaken_after_its_lease(site: Site) -> None:
    """Of another machine nothing can be known but that its beat stands still."""
    pool = next(iter(site.pool.database.records["pool"]))
    site.pool.database.set("pool", pool, other_config={"fascicle-lock-radiology.4": "gone/1/1", "kept": "as it is"})
    file = site.file(count=1)
    with site.backend(file, lease_s=0.5) as backend, backend.open_lock("here/2/2", 5.0) as lock:
        lock.check()
        config = site.pool.database.get("pool", pool)["other_config"]
        assert config == {
            "fascicle-lock-radiology.5": "here/2/2",
            "fascicle-lock-radiology.5.beat": "1",
            "kept": "as it is",
        }
    assert site.pool.database.get("pool", pool)["other_config"] == {"kept": "as it is"}


async def test_who_was_overtaken_does_nothing_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.0)
    file = site.file(count=1)
    said = pytest.raises(BusyError, match="the pool's lock was lost to fast/2/2")
    with site.backend(file) as first, site.backend(file, lease_s=0.3) as second:
        held = first.open_lock("slow/1/1", 0.0)
        with held as lock, second.open_lock("fast/2/2", 5.0), said:
            lock.check()


async def test_marks_survive(site: Site) -> None:
    await site.apply(site.file(count=1))
    with site.backend(site.file(count=1)) as backend:
        backend.mark("node-01", Stage.LEAVING)
        seen = backend.machine("node-01")
    assert (seen.stage, seen.number, seen.memory_bytes >> 30, seen.disk_bytes >> 30) == (Stage.LEAVING, 1, 1, 3)
    assert seen.address.startswith("10.0.")
