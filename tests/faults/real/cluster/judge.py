"""What a cluster must be after faults: all that was acknowledged is listed once, on R nodes, and comes back whole.

Three witnesses that do not ask each other: the gateway's listing, the nodes' folders as they lie on the disk, and what
`fascicle get` writes. Then `fascicle verify --deep`, SQLite's own check of the catalogue, and every line of the audit
trail. Refuses to do: repairing.
"""

import contextlib
import json
import shutil
import sqlite3
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

from gateway import audit
from tests.faults.real.cluster import images
from tests.faults.real.cluster.site import Site
from transfer import credentials, pki, tls
from transfer.errors import FascicleError

CALM_S: Final = 90.0
NAMED_MAX: Final = 5


class Entry:
    """What the listing says of one object."""

    __slots__ = ("node_ids", "times")

    def __init__(self) -> None:
        self.node_ids: set[str] = set()
        self.times = 0


class Judge:
    """Judges one cluster while it runs; `tend` keeps it running meanwhile."""

    def __init__(self, site: Site, work: Path, tend: Callable[[], None]) -> None:
        self._site, self._work, self._tend = site, work, tend

    def problems(self, acknowledged: set[str], *, whole: bool) -> list[str]:
        """Return what is wrong; `whole`: every byte is read as well."""
        found = self._calm()
        try:
            return found + self._witnessed(acknowledged, whole=whole)
        except (httpx.HTTPError, sqlite3.Error) as error:
            return [*found, f"LOST altogether: the gateway or its catalogue cannot be asked: {error!r}"]

    def _witnessed(self, acknowledged: set[str], *, whole: bool) -> list[str]:
        found = self._listed({name for name in acknowledged if not name.startswith("data set")})
        if whole:
            found += self._fetched(acknowledged)
            found += self._verified() + self._sound_trail()
        return found + self._sound_catalogue()

    def _calm(self) -> list[str]:
        """Wait until all nodes live, the agent has delivered, and nothing is short: time that repair may take."""
        deadline_s = time.monotonic() + CALM_S
        while (why := self._unrest()) and time.monotonic() < deadline_s:
            self._tend()
            time.sleep(0.05)
        return [f"no calm within {CALM_S:.0f} s: {why}"] if why else []

    def _unrest(self) -> str:
        spooled = self._site.spooled()
        if spooled:
            return f"{spooled} images in the agent's spool"
        try:
            status = self._ask("/api/v1/status")
        except httpx.HTTPError as error:
            return f"no status: {error!r}"
        silent = [node["node_id"] for node in status["nodes"] if node["state"] != "live"]
        repairs = {key: value for key, value in status["repairs"].items() if key in BAD and value}
        return f"not live: {silent}" if silent else f"{repairs}" if repairs else ""

    def _listed(self, acknowledged: set[str]) -> list[str]:
        """Compare the listing and the disks with what was promised."""
        listed = self._listing()
        held = {node.name: held_by(self._site.node_folder(node)) for node in self._site.nodes}
        twice = [name for name, entry in listed.items() if entry.times != 1]
        missing = [name for name in acknowledged if name not in listed]
        few = [name for name in acknowledged if sum(name in each for each in held.values()) < self._site.replicas]
        untrue = [name for name, entry in listed.items() if any(name not in held[node] for node in entry.node_ids)]
        short = [name for name, entry in listed.items() if len(entry.node_ids) < self._site.replicas]
        return [
            *_say("LOST from the listing", missing),
            *_say("LOST replicas on the disks", few),
            *_say("listed more than once", twice),
            *_say("listed with a node that does not hold it", untrue),
            *_say("listed with too few nodes", short),
        ]

    def _listing(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        after: str | None = None
        while True:
            page = self._ask("/api/v1/objects", limit=1000, **({"after": after} if after else {}))
            for each in page["objects"]:
                entry = found.setdefault(each["object_id"], Entry())
                entry.times += 1
                entry.node_ids.update(each["node_ids"])
            self._tend()
            if (after := page["next"]) is None:
                return found

    def _fetched(self, acknowledged: set[str]) -> list[str]:
        """Fetch everything, and look for what was promised in it."""
        out = self._work / "out"
        code, words = self._run("get", "--all", out)
        files: Counter[str] = Counter()
        objects: dict[str, set[str]] = {}  # by data set: one that came twice is one object, perhaps with two names
        for path in out.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                files[images.file_name(data)] += 1
                objects.setdefault(images.data_set_name(images.data_set(data)), set()).add(images.file_name(data))
        shutil.rmtree(out, ignore_errors=True)
        found = files | Counter({name: len(each) for name, each in objects.items()})
        problems = [f"get: {code} {words}"] if code and acknowledged else []
        return [
            *problems,
            *_say("LOST bytes", [name for name in acknowledged if not found[name]]),
            *_say("given twice", [name for name in acknowledged if found[name] > 1]),
        ]

    def _verified(self) -> list[str]:
        code, words = self._run("verify", "--deep")
        return [f"verify --deep: {code} {words}"] if code else []

    def _sound_trail(self) -> list[str]:
        """Check every line of the gateway's audit trail, and that it goes as far as its anchor."""
        config = tomllib.loads(self._site.gateway_config.read_text())
        key = pki.load_signing_key(Path(config["identity"])).public_key()
        try:
            audit.verify(Path(config["data"]), key, [])
        except FascicleError as error:
            return [f"the audit trail: {error.message}"]
        return []

    def _run(self, *words: object) -> tuple[int, str]:
        part = self._site.part("judge", *words, "--to", self._site.credentials, "--json")
        part.log.unlink(missing_ok=True)
        part.start()
        while (code := part.ended()) is None:
            self._tend()
            time.sleep(0.01)
        return code, part.tail()

    def _sound_catalogue(self) -> list[str]:
        with contextlib.closing(self._site.open_catalogue()) as link:
            (answer,) = link.execute("PRAGMA integrity_check").fetchone()
            shown = link.execute("SELECT count(*), coalesce(sum(size_bytes), 0) FROM object WHERE visible").fetchone()
            totals = link.execute("SELECT objects, bytes FROM totals").fetchone()
        problems = [] if answer == "ok" else [f"the catalogue: {answer}"]
        return problems + ([f"totals {totals}, and {shown} are shown"] if tuple(totals) != tuple(shown) else [])

    def _ask(self, path: str, **parameters: Any) -> Any:
        own = credentials.load(self._site.credentials)
        with httpx.Client(base_url=own.gateway, verify=tls.client_context(own), timeout=60) as client:
            answer = client.get(path, params=parameters)
            answer.raise_for_status()
            return json.loads(answer.content)


BAD: Final = ("short_objects", "lost_objects", "damaged_objects")


def held_by(folder: Path) -> set[str]:
    """Return the ids of the object files in a node's folder."""
    return {path.name for path in folder.glob("objects/??/??/*")}


def _say(what: str, names: list[str]) -> list[str]:
    return [f"{what}: {len(names)}, such as {names[:NAMED_MAX]}"] if names else []
