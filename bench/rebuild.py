"""How fast `fascicle gateway rebuild` makes a catalogue anew: a real run on made-up headers, real in every other way.

    python -m bench.rebuild --objects 100000 --nodes 2 --replicas 2

The files have headers as nodes write them, of studies of 200 images, and a few stored bytes, which a rebuild does not
read. What is written to the disk is 4 KiB a replica. Prints one JSON object; `minutes_per_million` is the measured rate
taken to a million objects, which holds if the catalogue's inserts do not slow down as it grows.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.cluster import FASCICLE, run, start_cluster
from nodes.objectfile import Header, Record, encode_header
from transfer.objects import Identity, object_id

STORED: bytes = b"stored bytes that nobody reads"
STUDY_OBJECTS, SERIES_OBJECTS = 200, 50


def record_of(number: int) -> Record:
    """Return the record of one made-up image."""
    study, series = number // STUDY_OBJECTS, number // SERIES_OBJECTS
    root = "1.2.826.0.1.3680043.8.498"
    identity = Identity(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"{root}.{study}.{series}.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_instance_uid=f"{root}.{study}",
        series_instance_uid=f"{root}.{study}.{series}",
        patient_id=f"P{study // 3:07}",
        patient_name=f"Name^Given {study // 3}",
        patient_birth_date="19600101",
        patient_sex="O",
        accession_number=f"A{study:08}",
        study_date="20260101",
        study_time="120000",
        study_description="CT HEAD W/O CONTRAST",
        modality="CT",
        series_number=str(series % 4),
        series_description="AXIAL 1.0 SOFT",
        instance_number=str(number % SERIES_OBJECTS),
    )
    name = object_id(b"%d" % number)
    return Record(object_id=name, size_bytes=525_000, stored_bytes=len(STORED), encoding="zstd", identity=identity)


def write_objects(folders: list[Path], count: int, replicas: int) -> None:
    """Write `count` objects, each to `replicas` of the nodes."""
    chance = random.Random(1)
    for number in range(count):
        record = record_of(number)
        data = encode_header(Header(record=record, stored_digest=bytes(32))) + STORED
        for folder in chance.sample(folders, replicas):
            place = folder / "objects" / record.object_id[:2] / record.object_id[2:4]
            place.mkdir(parents=True, exist_ok=True)
            (place / record.object_id).write_bytes(data)


@contextmanager
def nodes_alone(data: Path) -> Iterator[None]:
    """Run the nodes of a cluster's folder without its gateway."""
    with ExitStack() as stack, (data / "alone.log").open("wb") as log:
        for config in sorted(data.glob("nodes/*/node.toml")):
            words = [*FASCICLE, "node", "serve", "--config", str(config)]
            process = stack.enter_context(subprocess.Popen(words, stdout=log, stderr=log))
            stack.callback(process.terminate)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to put them (default: the temporary folder)")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fascicle-bench-", dir=wanted.folder) as name:
        cluster = start_cluster(Path(name), nodes=wanted.nodes, replicas=wanted.replicas)
        cluster.stop()
        data = cluster.data
        began_s = time.monotonic()
        write_objects(sorted(data.glob("nodes/node-*")), wanted.objects, wanted.replicas)
        print(f"headers written in {time.monotonic() - began_s:.0f} s", file=sys.stderr)
        with nodes_alone(data):
            config = data / "gateway/gateway.toml"
            result = run("gateway", "rebuild", "--config", config, "--keep-aside", "--json", timeout_s=36_000)
        assert result.code == 0, result
        assert result.summary["objects"] == wanted.objects, result
        assert result.summary["replicas"] == wanted.objects * wanted.replicas, result
        seconds = result.summary["seconds"]
        figures = {
            "objects": wanted.objects,
            "replicas": result.summary["replicas"],
            "nodes": wanted.nodes,
            "processors": os.cpu_count(),
            "seconds": seconds,
            "objects_per_s": round(wanted.objects / seconds, 1),
            "minutes_per_million": round(seconds / wanted.objects * 1e6 / 60, 2),
            "catalogue_bytes": (data / "gateway/catalogue.db").stat().st_size,
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
