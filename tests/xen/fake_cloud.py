"""A gateway in memory for tests of pools: knows who was invited, enrolled, serves and drains; its state is open."""

import json
import shlex
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from xen.cloud import Node


class FakeCloud:
    """`xen.cloud.Cloud` without a gateway; nodes enrol by `boot`, as their machines do."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tokens: dict[str, str] = {}
        self.known: dict[str, dict[str, Any]] = {}
        self.domains: dict[str, str] = {}
        self.enrolments: list[str] = []
        self.revoked: list[str] = []
        self.needed: dict[str, int] = {}
        self.room_bytes = 0  # of a node that enrols; 0: it does not say

    def boot(self, name: str, token: str, domain: str) -> None:
        """A node comes up with what its first-boot drive says; enrols if it has not."""
        with self.lock:
            if name not in self.known:
                if self.tokens.pop(token, None) != name:
                    return
                self.enrolments.append(name)
                self.domains[name] = domain
                self.known[name] = {"draining": False, "free_bytes": self.room_bytes, "total_bytes": self.room_bytes}
            self.known[name] |= {"state": "live", "silent_s": None}

    def halt(self, name: str, silent_s: float = 0.0) -> None:
        """A node is heard no more."""
        with self.lock:
            if name in self.known:
                self.known[name] |= {"state": "silent", "silent_s": silent_s}

    def fill(self, free_bytes: int) -> None:
        """Let every node have so much left."""
        with self.lock:
            for each in self.known.values():
                each["free_bytes"] = free_bytes

    async def nodes(self) -> Mapping[str, Node]:
        return self.view()

    def view(self) -> dict[str, Node]:
        with self.lock:
            return {
                name: Node(name=name, needed_objects=self.needed.get(name, 0) if each["draining"] else 0, **each)
                for name, each in self.known.items()
            }

    async def invite(self, name: str, hosts: Sequence[str]) -> str:
        return self.invite_now(name)

    def invite_now(self, name: str) -> str:
        with self.lock:
            token = f"token-{len(self.tokens) + len(self.enrolments)}-{name}"
            self.tokens[token] = name
            return token

    async def drain(self, name: str) -> None:
        self.drain_now(name)

    def drain_now(self, name: str) -> None:
        with self.lock:
            self.known[name]["draining"] = True

    async def needed_objects(self, name: str) -> int:
        return self.needed_now(name)

    def needed_now(self, name: str) -> int:
        with self.lock:
            return self.needed.get(name, 0) if name in self.known else 0

    async def revoke(self, name: str) -> None:
        self.revoke_now(name)

    def revoke_now(self, name: str) -> None:
        with self.lock:
            self.known.pop(name, None)
            self.revoked.append(name)

    async def tell_domain(self, name: str, domain: str) -> None:
        with self.lock:
            self.domains[name] = domain


def read_drive(image: bytes) -> dict[str, str]:
    """Return what a first-boot drive tells a node: its name, token, address, failure domain."""
    import io

    from pycdlib import PyCdlib

    disc = PyCdlib()
    disc.open_fp(io.BytesIO(image))
    found = {}
    for name in ("meta-data", "user-data", "network-config"):
        out = io.BytesIO()
        try:
            disc.get_file_from_iso_fp(out, joliet_path=f"/{name}")
        except Exception:  # noqa: BLE001, S112, RUF100  # the library's own, for a file that is not there
            continue
        found[name] = out.getvalue().decode()
    assert disc.pvd.volume_identifier.decode().strip() == "cidata"
    disc.close()
    user = json.loads(found["user-data"].removeprefix("#cloud-config\n"))
    words = shlex.split(user["runcmd"][0][2])
    return {
        "name": json.loads(found["meta-data"])["local-hostname"],
        "token": user["write_files"][0]["content"],
        "advertise": words[words.index("--advertise") + 1],
        "domain": words[words.index("--failure-domain") + 1],
        "network": found.get("network-config", ""),
    }
