"""`fascicle up`: a whole cluster on this machine, one process a role, until a signal ends it (design section 12).

    up (this process: prepares, supervises, waits until all nodes are live, prints the ready line)
    |-- gateway      python -m fascicle gateway serve --config DIR/gateway/gateway.toml
    |-- node-1       python -m fascicle node serve --config DIR/nodes/node-1/node.toml
    `-- node-2 ...

Standard output carries the ready line and nothing else; what people read goes to standard error, what the roles log to
DIR/logs/. One `up` a folder, by a lock that dies with its process. Refuses to do: anything that the roles do.
"""

import contextlib
import fcntl
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import trio

from fascicle import layout
from fascicle.layout import Cluster, Options
from fascicle.supervisor import Child, Ended, Event, Started, ending, serve_children
from transfer import credentials
from transfer.client import GatewayClient
from transfer.errors import CrashedError, FascicleError, SettingsError
from transfer.leftovers import clear_leftovers

READY_S: Final = 180.0  # what has failed says so at once; what is left shares the processors with a busy machine
READY_CHILD_S: Final = 2.0  # more for each, since they share the processors, with whatever else the machine does
ASK_AGAIN_S: Final = 0.1
SAY_AGAIN_S: Final = 20.0
LOG_LINES: Final = 5
LOG_TAIL_BYTES: Final = 4096
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GATEWAY_STAGE, NODE_STAGE = 0, 1  # the gateway stops first: it lets nobody in whom the nodes would then drop

__all__ = ["Options", "run"]


class ReadyNode(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node in the ready line; `paper`: where it takes the paper's own protocol."""

    node_id: str
    address: str
    paper: str = ""


class Ready(msgspec.Struct, frozen=True):
    """The ready line."""

    ready: bool
    gateway: str
    nodes: list[ReadyNode]
    credentials: str
    web: str


def run(options: Options) -> None:
    """Run the cluster until SIGINT, SIGTERM or SIGHUP (unless ignored); nothing of it is left on return.

    Raises:
        SettingsError: see `layout.prepare`; or another `up` has the folder.
        CrashedError: a process keeps ending, or the cluster is not ready in time.
    """
    with _lock(options.data):
        data = options.data.expanduser().resolve()
        clear_leftovers(data, data / "pki", *(data / "pki").glob("*/"))
        cluster = layout.prepare(options)
        children = _children(data, cluster)
        trio.run(_run, cluster, children)


async def _run(cluster: Cluster, children: list[Child]) -> None:
    with trio.open_signal_receiver(*_heeded(STOP_SIGNALS)) as signals:
        watch = _Watch(cluster)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_children, children, watch.tell)
            nursery.start_soon(_announce, cluster, children, watch)
            number = await anext(signals)
            _say(f"{signal.Signals(number).name}: stopping")
            nursery.cancel_scope.cancel()
    _say("stopped")


def _heeded(numbers: Sequence[signal.Signals]) -> list[signal.Signals]:
    """Return the signals to stop at: not a hang-up that `nohup` had ignored, which comes when its user logs out."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in numbers if not (number is signal.SIGHUP and is_ignored)]


class _Watch:
    """Hears what happens to the children; before the cluster is ready, a configuration that is refused ends it.

    A node that ended because its folder was lost finds its configuration and identity again.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.ready = False
        self._places = {place.node_id: place for place in cluster.places}

    def tell(self, event: Event) -> None:
        match event:
            case Started(child, pid):
                _say(f"{child.name} started (pid {pid})")
            case Ended(child, status, lived_s):
                _say(f"{child.name} ended after {lived_s:.1f} s ({ending(status)}); it is started again")
                if child.name in self._places:
                    layout.restore(self._places[child.name])
                if status == SettingsError.exit_code and not self.ready:
                    raise SettingsError(f"{child.name} refuses its configuration: {_last_lines(child.log)}")


async def _announce(cluster: Cluster, children: list[Child], watch: _Watch) -> None:
    missing = {child.name for child in children}
    try:
        with trio.fail_after(_ready_within_s(children)):
            async with GatewayClient(credentials.load(cluster.credentials), patience_s=0) as gateway:
                said_s = trio.current_time()
                while missing := await _missing(gateway, children):
                    if trio.current_time() - said_s >= SAY_AGAIN_S:
                        said_s = trio.current_time()
                        _say(f"still waits for {', '.join(sorted(missing))}; logs are in {children[0].log.parent}")
                    await trio.sleep(ASK_AGAIN_S)
    except trio.TooSlowError as error:
        raise CrashedError(_not_ready(children, missing)) from error
    watch.ready = True
    _say(f"ready at {cluster.url}")
    nodes = [ReadyNode(place.node_id, place.address, place.paper_address) for place in cluster.places]
    line = Ready(True, cluster.url, nodes, str(cluster.credentials), cluster.url)
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


async def _missing(gateway: GatewayClient, children: list[Child]) -> set[str]:
    """Return the names of the children that cannot be used yet."""
    try:
        status = await gateway.status()
    except FascicleError as error:
        if not error.retryable:
            raise
        return {child.name for child in children}  # nobody is known to live before the gateway says so
    live = {node.node_id for node in status.nodes if node.state == "live"}
    return {child.name for child in children if child.stage == NODE_STAGE} - live


def _not_ready(children: list[Child], missing: set[str]) -> str:
    late = [child for child in children if child.name in missing]
    return f"not ready within {_ready_within_s(children):.0f} s: " + "; ".join(
        f"{child.name}: {_last_lines(child.log)}" for child in late[:3]
    )


def _ready_within_s(children: list[Child]) -> float:
    return READY_S + READY_CHILD_S * len(children)


def _children(data: Path, cluster: Cluster) -> list[Child]:
    (data / "logs").mkdir(exist_ok=True)

    def child(name: str, stage: int, *words: str) -> Child:
        command = (sys.executable, "-m", "fascicle", *words)
        return Child(
            name=name, command=command, stage=stage, log=data / f"logs/{name}.log", pid_file=data / f"run/{name}.pid"
        )

    return [
        child("gateway", GATEWAY_STAGE, "gateway", "serve", "--config", str(cluster.gateway_config)),
        *(child(place.node_id, NODE_STAGE, "node", "serve", "--config", str(place.config)) for place in cluster.places),
    ]


@contextlib.contextmanager
def _lock(data: Path) -> Iterator[None]:
    """Hold the folder for this process, and say which process that is."""
    folder = data.expanduser() / "run"
    try:
        data.expanduser().mkdir(parents=True, exist_ok=True, mode=0o700)  # what it will hold is nobody else's business
        folder.mkdir(exist_ok=True)
        lock = (folder / "up.lock").open("ab")
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be used: {error.strerror}") from error
    with lock:
        _claim(lock.fileno(), folder)
        for stale in folder.glob("*.pid"):
            stale.unlink(missing_ok=True)
        (folder / "up.pid").write_text(f"{os.getpid()}\n")
        try:
            yield
        finally:
            (folder / "up.pid").unlink(missing_ok=True)


def _claim(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = _text(folder / "up.pid") or "unknown"
        raise SettingsError(f"{folder.parent}: another `fascicle up` (pid {pid}) has this folder") from error


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _last_lines(log: Path) -> str:
    """Return the end of a log on one line, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            lines = deque(file.read().decode(errors="replace").splitlines(), maxlen=LOG_LINES)
    except OSError as error:
        return f"its log {log} cannot be read: {error.strerror}"
    return " | ".join(lines) or f"its log {log} is empty"


def _say(text: str) -> None:
    """Tell people. A cluster does not end because nobody listens to it any more."""
    with contextlib.suppress(OSError):  # nobody reads any more
        print(f"fascicle up: {text}", file=sys.stderr, flush=True)
