"""Makes the link of a profile between two namespaces, by the best means that this kernel has, and says which.

    loop                    veth, unshaped; without root the machine's own loopback
    any, kernel has netem   veth, `tc netem` at each end for its direction
    rate only               veth, `tc tbf` at each end
    anything else           two TUN devices and the process `experiments.userspace`

Refuses to do: trusting the result (`experiments.calibration`).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, Final

from experiments import congestion
from experiments.accounting import open_groups
from experiments.namespaces import (
    CLIENT_ADDRESS,
    SERVER_ADDRESS,
    LinkError,
    Side,
    call,
    open_namespaces,
    program,
    why_not,
)
from experiments.processes import processor_s
from experiments.profiles import Profile, queue_bytes
from transfer.errors import SettingsError

MTU: Final = 1500
# A burst passes unshaped: with 32 KiB at 2 Mb/s a tenth of a second of it. Less than two frames, and `tbf` takes none.
BURST_S, BURST_MIN_BYTES, BURST_MAX_BYTES = 0.002, 2 * 1514, 32 << 10
# A veth passes packets of 64 KiB uncut. `tbf` cuts those above its burst to single frames, at the cost of half of two
# cores at 1 Gb/s (measured: 1.1 processor seconds a second, as with segmentation off); 10 frames at a time cost 0.3.
SEGMENTS_MAX: Final = 10
NETEM_PACKETS: Final = 100_000
START_S, STOP_S = 10.0, 10.0


@dataclass
class Link:
    """A link that stands: both ends, how it is made, and what the reports say of it."""

    profile: Profile
    client: Side
    server: Side
    method: str
    process: "subprocess.Popen[str] | None" = None
    notes: dict[str, Any] = field(default_factory=dict)

    def processor_s(self) -> float:
        """Return the processor seconds that the link itself has taken so far, where a process is the link."""
        return processor_s([self.process.pid]) if self.process else 0.0

    def describe(self) -> dict[str, Any]:
        """Return what a report says of the link."""
        return {"profile": asdict(self.profile), "method": self.method, **self.notes}


@contextmanager
def open_link(profile: Profile, *, seed: int = 0, algorithm: str = "") -> Iterator[Link]:
    """Make the link of `profile`, with TCP's congestion control `algorithm` ("": the kernel's) at both ends.

    Raises:
        SettingsError: it needs what this machine or user does not have; the message says what still works.
        LinkError: a step failed.
    """
    reason = why_not()
    if reason and not profile.shaped:
        end = Side("127.0.0.1", "lo")
        yield Link(profile, end, end, "loopback", notes={"why": reason} | congestion.observed(end))
        return
    if reason:
        raise SettingsError(
            f"the profile {profile.name!r} cannot be made: {reason}. Without it `fascicle experiment run loop` works, "
            "and `fascicle experiment report` of what was measured before"
        )
    with (
        open_namespaces() as names,
        open_groups(names) as groups,
        congestion.allowed(algorithm),
        _open_shaped(profile, names, seed) as link,
    ):
        congestion.choose((link.client, link.server), algorithm)
        link.notes |= congestion.observed(link.client)
        link.client, link.server = (
            replace(end, group=group) for end, group in zip((link.client, link.server), groups, strict=True)
        )
        yield link


@contextmanager
def _open_shaped(profile: Profile, names: tuple[str, str], seed: int) -> Iterator[Link]:
    if not profile.shaped or profile.rate_only or has_netem():
        yield _veth_link(profile, names)
    else:
        with _open_userspace(profile, names, seed) as link:
            yield link


def _veth_link(profile: Profile, names: tuple[str, str]) -> Link:
    devices = tuple(f"{name}v" for name in names)
    ip = program("ip")
    call(ip, "-n", names[0], "link", "add", devices[0], "type", "veth", "peer", "name", devices[1], "netns", names[1])
    client, server = _raise_devices(names, devices, framed=True)
    link = Link(profile, client, server, "veth")
    if profile.shaped:
        link.method = "netem" if has_netem() else "tbf"
        for end, rate_bit_s in ((client, profile.up_bit_s), (server, profile.down_bit_s)):
            shape = _netem(profile, rate_bit_s) if link.method == "netem" else _tbf(rate_bit_s)
            call(ip, "-n", end.namespace, "link", "set", end.device, "gso_max_segs", SEGMENTS_MAX)
            call(program("tc"), "-n", end.namespace, "qdisc", "add", "dev", end.device, "root", *shape)
            link.notes.setdefault("shapers", []).append(" ".join(map(str, shape)))
    return link


def _netem(profile: Profile, rate_bit_s: float) -> list[object]:
    words: list[object] = ["netem", "limit", NETEM_PACKETS]
    if profile.delay_ms:
        words += ["delay", f"{profile.delay_ms / 2:g}ms"]
    if profile.loss_ratio:
        words += ["loss", f"{profile.loss_ratio:.4%}"]
    if rate_bit_s:
        queue = queue_bytes(rate_bit_s, profile.delay_ms) + rate_bit_s / 8 * profile.delay_ms / 2e3
        words[2] = max(2, round(queue / (MTU + 14)))  # netem counts what is under way, too
        words += ["rate", f"{rate_bit_s:.0f}bit"]
    return words


def _tbf(rate_bit_s: float) -> list[object]:
    burst = min(max(round(rate_bit_s / 8 * BURST_S), BURST_MIN_BYTES), BURST_MAX_BYTES)
    return ["tbf", "rate", f"{rate_bit_s:.0f}bit", "burst", burst, "limit", queue_bytes(rate_bit_s, 0)]


def _raise_devices(names: tuple[str, ...], devices: tuple[str, ...], *, framed: bool) -> tuple[Side, Side]:
    sides = []
    ends = ((CLIENT_ADDRESS, SERVER_ADDRESS), (SERVER_ADDRESS, CLIENT_ADDRESS))
    for name, device, (address, peer) in zip(names, devices, ends, strict=True):
        ip = (program("ip"), "-n", name)
        call(*ip, "addr", "add", address, "peer", peer, "dev", device)
        call(*ip, "link", "set", device, "mtu", MTU, "up")
        sides.append(Side(address, device, name, framed))
    return sides[0], sides[1]


@contextmanager
def _open_userspace(profile: Profile, names: tuple[str, str], seed: int) -> Iterator[Link]:
    devices = tuple(f"{name}t" for name in names)
    settings = lane_settings(profile, seed)
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.userspace", *devices],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C on a terminal is for us; the link goes last
    )
    try:
        _start(process, settings)
        for name, device in zip(names, devices, strict=True):
            call(program("ip"), "link", "set", device, "netns", name)
        client, server = _raise_devices(names, devices, framed=False)
        yield Link(profile, client, server, "userspace", process, {"lanes": settings})
    finally:
        _stop(process)


def lane_settings(profile: Profile, seed: int) -> dict[str, dict[str, Any]]:
    """Return what `experiments.userspace` is told about both directions."""

    def lane(rate_bit_s: float, number: int) -> dict[str, Any]:
        queue = queue_bytes(rate_bit_s, profile.delay_ms)
        how = {"rate_bit_s": rate_bit_s, "delay_s": profile.delay_ms / 2e3, "loss_ratio": profile.loss_ratio}
        return how | {"queue_bytes": queue, "seed": seed * 2 + number}

    return {"up": lane(profile.up_bit_s, 0), "down": lane(profile.down_bit_s, 1)}


def _start(process: "subprocess.Popen[str]", settings: dict[str, Any]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # it ended at once; what it did not say is asked for below
        process.stdin.write(json.dumps(settings) + "\n")
        process.stdin.flush()
    if process.stdout.readline() != "ready\n":
        raise LinkError("the userspace link did not start: is there /dev/net/tun?")
    with suppress(PermissionError):  # not root: then it waits as others do
        os.setpriority(os.PRIO_PROCESS, process.pid, -10)  # a cable does not wait for a processor


def _stop(process: "subprocess.Popen[str]") -> None:
    try:
        process.communicate(timeout=STOP_S)  # the end of its input ends it
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


@cache
def has_netem() -> bool:
    """Tell whether this kernel shapes by netem, by trying."""
    with open_namespaces() as (name, _):
        try:
            call(program("tc"), "-n", name, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
        except LinkError:
            return False
    return True
