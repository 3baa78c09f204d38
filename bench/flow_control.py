"""What the flow controller does: on simulated links, or with a real kernel's TCP over any real or emulated link.

python -m bench.flow_control                                        the table of docs/flow-control.md
python -m bench.flow_control --sink 10.0.0.2                        at the far end: takes bytes
python -m bench.flow_control --blast 10.0.0.2 --congestion cubic    at the near end: zeros, as many flows as the
                                                                    controller says; with --flows N always N
"""

import argparse
import contextlib
import struct
import time

import trio

from tests.control.link import PROFILES, Link, controlled
from transfer.control import sockets, tcp_info
from transfer.control.flows import advance, begin, first_flows
from transfer.control.readings import Limits
from transfer.control.sampling import sample

SEEDS = range(5)
FIXED = (1, 2, 4, 8, 16, 32, 48, 64)
CASES = [("lan", "cubic"), ("tanet", "cubic"), ("tanet", "bbr"), ("adsl", "cubic"), ("wan", "cubic"), ("wan", "bbr")]
PORT = 5201


def seconds(name: str, kind: str, flows: int, total_bytes: float) -> float:
    link = Link(PROFILES[name], seed=3, kind=kind)
    link.set_flows(flows)
    while link.delivered < total_bytes:
        link.run(0.05)
    return link.now_s


def simulated() -> None:
    print(
        "| link | congestion control | floor | best fixed number | first time | remembered | changes a minute later |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, kind in CASES:
        path = PROFILES[name]
        total_bytes = 59e6 if path.rate > 1e6 else 4.7 * path.rate
        fixed = {flows: seconds(name, kind, flows, total_bytes) for flows in FIXED}
        best = min(fixed, key=lambda flows: fixed[flows])
        unknown = Limits(
            first=first_flows(path.rtt_s, loss_based=kind == "cubic"),
            loss_based=kind == "cubic",
        )
        first = [
            controlled(Link(path, seed=seed, kind=kind), total_bytes=total_bytes, limits=unknown).seconds
            for seed in SEEDS
        ]
        learnt = controlled(Link(path, seed=1, kind=kind), seconds=30.0).state
        assert learnt
        limits = Limits(first=learnt.best, loss_based=kind == "cubic")
        again = [
            controlled(Link(path, seed=seed, kind=kind), total_bytes=total_bytes, limits=limits).seconds
            for seed in SEEDS
        ]
        later = controlled(Link(path, seed=2, kind=kind), seconds=120.0).changes
        print(
            f"| {name} | {kind} | {total_bytes / path.rate:.1f} s | {fixed[best]:.1f} s with {best} "
            f"| {sum(first) / len(first):.1f} s | {sum(again) / len(again):.1f} s with {learnt.best} at first "
            f"| {sum(60 < at_s <= 120 for at_s, _ in later)} |"
        )


# On a real kernel


async def sink(host: str) -> None:
    async def drain(stream: trio.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):  # the sender ends as it likes
                while await stream.receive_some(1 << 20):
                    pass

    await trio.serve_tcp(drain, PORT, host=host)


class Blast:
    """Sends zeros on as many flows as are wanted; flows beyond pause."""

    def __init__(self, host: str, congestion: str) -> None:
        self.host, self.congestion = host, congestion
        self.started = 0
        self.wanted = 0
        self.open: dict[int, trio.SocketStream] = {}
        self.changed = trio.Event()

    def want(self, flows: int, nursery: trio.Nursery) -> None:
        for number in range(self.started, flows):
            nursery.start_soon(self.flow, number)
            self.started = number + 1
        self.wanted = flows
        self.changed.set()
        self.changed = trio.Event()

    async def flow(self, number: int) -> None:
        stream = await trio.open_tcp_stream(self.host, PORT)
        sockets.prepare(stream.socket, self.congestion)
        linger = struct.pack("ii", 1, 0)  # at the end nothing unsent stays for the next run to meet
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
        self.open[number] = stream
        while True:
            while number >= self.wanted:
                await self.changed.wait()
            await stream.send_all(bytes(64 << 10))

    def infos(self) -> dict[int, tcp_info.TcpInfo]:
        found = {number: tcp_info.read(stream.socket) for number, stream in self.open.items()}
        return {number: info for number, info in found.items() if info is not None}

    async def run(
        self, total_bytes: float, flows: int | None, first: int
    ) -> tuple[float, list[tuple[float, int]], int]:
        limits = Limits(first=first, loss_based=sockets.is_loss_based(self.congestion))
        state = begin(limits)
        start_s = at_s = trio.current_time()
        changes = [(0.0, flows or state.flows)]
        async with trio.open_nursery() as nursery:
            before: dict[int, tcp_info.TcpInfo] = {}
            while True:
                self.want(flows or state.flows, nursery)
                await trio.sleep(0.1)
                now, span_s = self.infos(), trio.current_time() - at_s
                at_s += span_s
                if sum(info.acked_bytes for info in now.values()) >= total_bytes:
                    break
                left = int(total_bytes - sum(info.acked_bytes for info in now.values()))
                ready = sum(number < self.wanted for number in self.open)
                found = sample(before, now, at_s=at_s, span_s=span_s, open_flows=ready, remaining_bytes=left)
                state, before = advance(state, found, limits), now
                if not flows and state.flows != changes[-1][1]:
                    changes.append((round(at_s - start_s, 1), state.flows))
            nursery.cancel_scope.cancel()
        return at_s - start_s, changes, state.best


def blast(host: str, congestion: str, flows: int, total_bytes: float) -> None:
    first = 4
    for turn in ("first time", "remembered"):
        took_s, changes, best = trio.run(Blast(host, congestion).run, total_bytes, flows or None, first)
        what = f"{flows} flows" if flows else f"controller, {turn}, {changes}, best {best}"
        print(f"{congestion} {took_s:.2f} s, {total_bytes / took_s / 1e6:.2f} MB/s: {what}", flush=True)
        first = best
        time.sleep(1)  # what is on its way arrives
        if flows:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sink", metavar="ADDRESS")
    parser.add_argument("--blast", metavar="ADDRESS")
    parser.add_argument("--congestion", default="cubic")
    parser.add_argument("--flows", type=int, default=0)
    parser.add_argument("--megabytes", type=float, default=59)
    arguments = parser.parse_args()
    if arguments.sink:
        trio.run(sink, arguments.sink)
    elif arguments.blast:
        blast(arguments.blast, arguments.congestion, arguments.flows, arguments.megabytes * 1e6)
    else:
        simulated()


if __name__ == "__main__":
    main()
