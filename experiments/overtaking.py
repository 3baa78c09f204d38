"""`fascicle experiment stat`: an urgent study of 20 images overtakes a bulk transfer that fills a slow uplink.

Promised: durable within 5 s of its start on `adsl`, and the bulk transfer finishes afterwards. Of 20 real CT slices
about 1 MB goes over the wire; 20 of the paper's images would need half a minute there with nothing beside them, so that
without real files the study is of small images (10 KB), and the bulk of the paper's. Refuses to do: judging a bulk
transfer that had ended before the study did.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from experiments import arguments, workload
from experiments.links import open_link
from experiments.profiles import PROFILES
from experiments.scenario import Place, open_place
from experiments.workload import Workload

LINK: Final = "adsl"
NODES: Final = 5
STUDY_OBJECTS: Final = 20
WITHIN_S: Final = 5.0
UNDER_WAY_S: Final = 6.0  # from the bulk's start: it fills the link long before


@dataclass(frozen=True)
class Finding:
    """How one study fared. `seconds` are the sender's own, `process_s` those of the whole command."""

    study: str
    study_bytes: int
    wire_bytes: int
    seconds: float
    process_s: float
    overtook: bool  # the bulk transfer was still running
    bulk_objects: int  # durable in the end
    bulk_seconds: float

    @property
    def met(self) -> bool:
        """Whether that is what was promised."""
        return self.overtook and self.seconds <= WITHIN_S

    def text(self) -> str:
        """Return it in words."""
        megabytes = f"{self.study_bytes / 1e6:.2f} MB, {self.wire_bytes / 1e6:.2f} on the wire"
        bulk = "finished afterwards" if self.overtook else "had ended before"
        return (
            f"study of {STUDY_OBJECTS} images ({self.study}, {megabytes}): durable in {self.seconds:.2f} s "
            f"({self.process_s:.2f} with the command's start and end), wanted {WITHIN_S:g} s; the bulk transfer "
            f"{bulk} ({self.bulk_objects} images in {self.bulk_seconds:.1f} s): {'met' if self.met else 'not met'}"
        )


def run(given: argparse.Namespace) -> int:
    """Send a study beside a bulk transfer, print how it fared, and return the exit code: 1 when it was not in time.

    Raises:
        FascicleError: a link that cannot be had, or a transfer that failed.
    """
    study = workload.choose(given.workload, 1)
    bulk = study if study.sources else workload.GENERATED[workload.PAPER]
    objects = arguments.whole(given.bulk, "--bulk", 1, arguments.OBJECTS_MAX)
    with tempfile.TemporaryDirectory(prefix="fascicle-experiment-") as name, open_link(PROFILES[LINK]) as link:
        folder = Path(name)
        bulk.write(folder / "bulk", objects=objects, seed=1)
        with open_place(link, folder, NODES) as place:
            finding = overtake(place, study)
    print(json.dumps(asdict(finding) | {"met": finding.met}))
    print(finding.text())
    return 0 if finding.met else 1


def overtake(place: Place, study: Workload, under_way_s: float = UNDER_WAY_S) -> Finding:
    """Send the folder `bulk`, and a study in the middle of that; both come to their end."""
    files = study.write(place.folder / "study", objects=STUDY_OBJECTS, seed=2)
    with place.open_command("send", place.folder / "bulk") as sender:
        time.sleep(under_way_s)
        begin_s = time.monotonic()
        urgent: dict[str, Any] = place.run_command("send", place.folder / "study", "--priority", "stat")
        process_s = time.monotonic() - begin_s
        overtook = sender.poll() is None
        rest = place.summary(sender)
    return Finding(
        study=study.name,
        study_bytes=sum(file.stat().st_size for file in files),
        wire_bytes=urgent["wire_bytes"],
        seconds=urgent["seconds"],
        process_s=round(process_s, 3),
        overtook=overtook,
        bulk_objects=rest["objects"],
        bulk_seconds=rest["seconds"],
    )
