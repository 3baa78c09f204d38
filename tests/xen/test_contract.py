"""The contract with XenAPI: every call that the code makes is in the published data model, with the right types,
and every error that the model declares for it ends in an error of ours that keeps its name, or is acted upon.

The whole command set is driven against the server, which judges each call by the model (`tests.xen.server.model`).
"""

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.xen.kit import Site, open_site
from tests.xen.server import model
from tests.xen.server.database import NULL
from transfer.errors import FascicleError, FullError
from xen import maintenance
from xen.apply import View, observe
from xen.backend import Backend, Clone, Shape
from xen.holding import open_lock
from xen.xenapi import errors, tasks

ACTED_UPON = {
    ("session.login_with_password", "HOST_IS_SLAVE"): "redirect",
    ("event.from", "EVENT_FROM_TOKEN_PARSE_FAILURE"): "begun anew",
    ("VM.set_groups", "LICENCE_RESTRICTION"): "own spreading",
}


async def drive(site: Site) -> None:
    """Every command: make, stop and start, pause, suspend, move, host out and in, snapshot, drain, destroy."""
    base = site.pool.database
    await site.apply(site.file(count=3, full_copy=True, prefix="full-"))
    await site.apply(site.file(count=0, full_copy=True, prefix="full-"))
    await site.apply(site.file(count=4))
    for name, state in (("node-01", "Halted"), ("node-02", "Paused"), ("node-03", "Suspended")):
        machine = base.pick("VM", name_label=name)[0]
        record = base.get("VM", machine)
        if state != "Paused":
            site.pool.claim_memory(record["resident_on"], -int(record["memory_static_max"]))
            base.set("VM", machine, resident_on=NULL)
        base.set("VM", machine, power_state=state)
    file = site.file(count=4)
    await site.apply(file)
    with site.backend(file) as backend:
        backend.snapshot("node-01", "before")
        async with open_lock(backend, "test/1/1", 0.0) as lock:
            view = await observe(backend, site.cloud)
            host = maintenance.find_host(view.pool, "host-1")
            moved, stay = await maintenance.free_host(
                file.wanted(), view, host, backend=backend, cloud=site.cloud, lock=lock
            )
            assert moved and not stay
            await trio.to_thread.run_sync(lambda: backend.open_host(host.host_id, is_open=True))
    base.make(
        "VDI", name_label="left", SR=site.storage, other_config={"fascicle_cluster": "radiology", "fascicle_drive": "x"}
    )
    await site.apply(site.file(count=0))


async def test_every_call_is_in_the_data_model_and_of_its_types(site: Site) -> None:
    site.pool.delays.task = 0.02
    await drive(site)
    assert site.pool.violations == []
    called = set(site.pool.calls)
    assert len(called) > 60
    with_errors = {each for each in called if model.message(each).get("errors")}
    assert with_errors <= {call for call, _ in declared()}  # all of which are judged below
    site.assert_nothing_left(0)


def test_the_server_judges_by_the_model(site: Site) -> None:
    """Each of these is what a careless client does."""
    for method, values in [
        ("VM.explode", ("OpaqueRef:s",)),
        ("VM.clone", ("OpaqueRef:s", "OpaqueRef:v")),
        ("VM.clone", ("OpaqueRef:s", "OpaqueRef:v", 7)),
        ("VM.set_memory", ("OpaqueRef:s", "OpaqueRef:v", 7)),
        ("VM.start_on", ("OpaqueRef:s", "OpaqueRef:v", "OpaqueRef:h", "no", False)),
        ("VDI.create", ("OpaqueRef:s", {"SR": "OpaqueRef:r"})),
        ("VBD.create", ("OpaqueRef:s", {"mode": "rw"})),
        ("VM.set_groups", ("OpaqueRef:s", "OpaqueRef:v", "OpaqueRef:g")),
        ("VM.set_other_config", ("OpaqueRef:s", "OpaqueRef:v", {"key": 1})),
        ("event.from", ("OpaqueRef:s", ["VM"], "", 20)),
    ]:
        with pytest.raises(model.Violation):
            model.check_parameters(method, values)
    model.check_parameters("host.disable", ("OpaqueRef:s", "OpaqueRef:h"))  # its last parameter may be left out
    model.check_parameters("VM.set_memory", ("OpaqueRef:s", "OpaqueRef:v", "7"))


def declared() -> list[tuple[str, str]]:
    """Return each error that the model declares for a call that the back end makes."""
    made = [
        "session.login_with_password",
        "VM.clone",
        "VM.copy",
        "VM.provision",
        "VM.set_groups",
        "VM.assert_can_boot_here",
        "VM.start_on",
        "VM.unpause",
        "VM.resume_on",
        "VM.clean_shutdown",
        "VM.hard_shutdown",
        "VM.pool_migrate",
        "VM.snapshot",
        "task.cancel",
        "event.from",
    ]
    return [(call, name) for call in made for name in dict.fromkeys(model.message(call).get("errors", []))]


Opened = tuple[Site, Backend, View]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    with open_site(tmp_path_factory.mktemp("pool")) as site:
        file = site.file(count=1)
        trio.run(site.apply, file)
        with site.backend(file) as backend:
            yield site, backend, trio.run(observe, backend, site.cloud)


@pytest.mark.parametrize(("call", "name"), declared(), ids=lambda each: each)
def test_every_declared_error_is_handled_or_passed_on_by_name(opened: Opened, call: str, name: str) -> None:
    site, backend, view = opened
    base = site.pool.database
    machine = base.pick("VM", name_label="node-01")[0]
    record = dict(base.get("VM", machine))
    words = [name, "details"] if name != "HOST_IS_SLAVE" else [name, base.get("host", site.hosts[0])["address"]]
    expected = FullError if call == "VM.assert_can_boot_here" else errors.KINDS.get(name)
    site.pool.inject(call, words, times=1)
    try:
        use(call, backend, base, machine, view, site)
    except FascicleError as error:
        assert (call, name) not in ACTED_UPON
        assert name in error.message
        if expected is not None:
            assert type(error) is expected
    else:
        assert (call, name) in ACTED_UPON or call in ("VM.clean_shutdown", "task.cancel"), "it was swallowed"
    finally:
        assert site.pool.injected.pop(call).times == 0, "the call was not made"
        base.set("VM", machine, **record)


def use(call: str, backend: Backend, base: Any, machine: str, view: View, site: Site) -> None:
    """Make the back end make this call."""
    session = backend._session  # type: ignore[attr-defined]  # of this back end
    host_id = base.get("host", site.hosts[0])["uuid"]
    match call:
        case "session.login_with_password":
            with site.backend(site.file(count=1)) as another:
                another.observe()
        case "VM.unpause" | "VM.resume_on":
            base.set("VM", machine, power_state="Paused" if call == "VM.unpause" else "Suspended")
            backend.start("node-01", host_id)
        case "VM.start_on":
            base.set("VM", machine, power_state="Halted")
            backend.start("node-01", host_id)
        case "VM.clean_shutdown":
            backend.shut_down("node-01", 5.0)
        case "VM.hard_shutdown":
            backend.destroy(base.get("VM", machine)["uuid"])
        case "VM.pool_migrate":
            elsewhere = next(each for each in site.hosts if each != base.get("VM", machine)["resident_on"])
            backend.move("node-01", base.get("host", elsewhere)["uuid"])
        case "VM.snapshot":
            backend.snapshot("node-01", "another")
        case "VM.assert_can_boot_here":
            base.set("host", site.hosts[0], enabled=False)
            try:
                backend.choose_host("node-01", [host_id])
            finally:
                base.set("host", site.hosts[0], enabled=True)
        case "task.cancel":
            tasks._cancel(session, session.call("task.create", "x", "y"))
        case "event.from":
            batches = tasks.watch(session, ["VM"], 5.0)
            if site.pool.injected[call].words[0] == "EVENT_FROM_TOKEN_PARSE_FAILURE":
                times, site.pool.injected[call].times = site.pool.injected[call].times, 0
                next(batches)
                site.pool.injected[call].times = times
            next(batches)
        case "VM.set_groups":
            base.set("VM", machine, groups=[])
            shape_again(backend, site)
        case "VM.clone" | "VM.copy" | "VM.provision":
            make_another(call, backend, view, site)
        case _:
            raise AssertionError(call)


def shape_again(backend: Backend, site: Site) -> None:
    backend.configure(
        "node-01",
        Shape(
            vcpus=1,
            memory_bytes=1 << 30,
            disk_bytes=3 << 30,
            network_id=site.pool.database.get("network", site.network)["uuid"],
            group="radiology node",
        ),
    )


def make_another(call: str, backend: Backend, view: View, site: Site) -> None:
    wish = Clone(
        name="node-02",
        number=2,
        template_id=view.pool.templates[0].template_id,
        storage_id=site.pool.database.get("SR", site.storage)["uuid"],
        host_id="",
        full_copy=call == "VM.copy",
        revision="",
    )
    try:
        backend.clone(wish)
        backend.configure(
            "node-02",
            Shape(
                vcpus=1,
                memory_bytes=1 << 30,
                disk_bytes=3 << 30,
                network_id=site.pool.database.get("network", site.network)["uuid"],
                group="",
            ),
        )
    finally:
        for each in backend.observe().machines:
            if each.name == "node-02":
                backend.destroy(each.machine_id)
