"""`fascicle experiment stat`: an urgent study of 20 images overtakes a bulk transfer that fills a slow uplink.

Promised: durable within 5 s of its start on `adsl`, and the bulk transfer finishes afterwards. Where the study's own
bytes need longer than that with nothing beside them (20 slices of 512 x 512: about 2 MB on the wire, 9 s), none can do
it: not met, and it says how much later than those bytes alone it was. Without real files the study is of generated
images of 49 KB, and the bulk of the paper's. Refuses to do: praising a study that had no bulk transfer to overtake.
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
GENERATED: Final = Workload("generated", side=156)
UNDER_WAY_S: Final = 6.0  # from the bulk's start: it fills the link long before


@dataclass(frozen=True)
class Finding:
    """How one study fared. `seconds` are the sender's own, `process_s` those of the whole command."""

    study: str
    study_bytes: int
    wire_bytes: int
    least_s: float  # of these on the link, with nothing beside them
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
        why = f", {self.seconds - self.least_s:.1f} s more than its bytes take alone"
        bulk = "finished afterwards" if self.overtook else "had ended before"
        process = f"{self.process_s:.2f} with the command's start and end"
        return (
            f"study of {STUDY_OBJECTS} images ({self.study}, {megabytes}): durable in {self.seconds:.2f} s "
            f"({process}){why}; wanted {WITHIN_S:.1f} s; the bulk transfer {bulk} "
            f"({self.bulk_objects} images in {self.bulk_seconds:.1f} s): {'met' if self.met else 'not met'}"
        )


def run(given: argparse.Namespace) -> int:
    """Send a study beside a bulk transfer, print how it fared, and return the exit code: 1 when it was not in time.

    Raises:
        FascicleError: a link that cannot be had, or a transfer that failed.
    """
    bulk = workload.choose(given.workload, 1)
    study = bulk if bulk.sources else GENERATED
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
        least_s=round(place.link.profile.floor_s(urgent["wire_bytes"]), 3),
        seconds=urgent["seconds"],
        process_s=round(process_s, 3),
        overtook=overtook,
        bulk_objects=rest["objects"],
        bulk_seconds=rest["seconds"],
    )
