"""What we write beside machines and disks of ours, in `other_config`, and how ours are told from others by it.

    fascicle_cluster   the pool file's cluster
    fascicle_uuid      the machine's own uuid: a copy or snapshot that somebody makes has the marks too, but another
    uuid fascicle_name, fascicle_stage, fascicle_revision fascicle_drive     of a disk: the machine that it is the
    first-boot drive of

A machine without marks is ours only by its name, which tells that it was being made (`xen.backend.raw_name`).
Refuses to do: reading and writing them.
"""

from collections.abc import Mapping
from typing import Any, Final

from xen.backend import RAW_MARK
from xen.observed import Stage

CLUSTER: Final = "fascicle_cluster"
UUID: Final = "fascicle_uuid"
NAME: Final = "fascicle_name"
STAGE: Final = "fascicle_stage"
REVISION: Final = "fascicle_revision"
DRIVE: Final = "fascicle_drive"
ALL: Final = frozenset({CLUSTER, UUID, NAME, STAGE, REVISION, DRIVE})


def marks(record: Mapping[str, Any], *, cluster: str, name: str, stage: Stage, revision: str) -> dict[str, str]:
    """Return the machine's whole `other_config` with these marks."""
    kept = {key: value for key, value in record["other_config"].items() if key not in ALL}
    return kept | {CLUSTER: cluster, UUID: record["uuid"], NAME: name, STAGE: stage.value, REVISION: revision}


def is_marked(record: Mapping[str, Any], cluster: str) -> bool:
    """Tell whether a machine's record bears our marks, as its own."""
    config = record["other_config"]
    return bool(config.get(CLUSTER) == cluster and config.get(UUID) == record["uuid"])


def is_raw(record: Mapping[str, Any], cluster: str) -> bool:
    """Tell whether a machine was being made for this cluster, and not marked."""
    return not is_marked(record, cluster) and bool(raw_owner(record["name_label"], cluster))


def raw_owner(label: str, cluster: str) -> str:
    """Return the node's name in a raw name of this cluster; '' for every other label."""
    name, mark, whose = label.partition(RAW_MARK)
    return name if mark and whose == cluster else ""


def name_of(record: Mapping[str, Any], cluster: str) -> str:
    """Return the node's name of a machine of ours."""
    if is_marked(record, cluster):
        return str(record["other_config"].get(NAME, ""))
    return raw_owner(record["name_label"], cluster)


def stage_of(record: Mapping[str, Any], cluster: str) -> Stage:
    """Return how far a machine of ours has come."""
    if not is_marked(record, cluster):
        return Stage.RAW
    try:
        return Stage(record["other_config"].get(STAGE, ""))
    except ValueError:
        return Stage.SERVING  # marked by a later version, or by hand: the most careful reading
