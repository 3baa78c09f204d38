"""The running cluster of `experiments.cluster`, under the name that tests, demo and measurements know it by."""

from experiments.cluster import (
    FASCICLE,
    Cluster,
    Result,
    open_cluster,
    processes_of,
    run,
    start_cluster,
    tail,
)
from experiments.processes import resident_peak_bytes

__all__ = [
    "FASCICLE",
    "Cluster",
    "Result",
    "open_cluster",
    "processes_of",
    "resident_peak_bytes",
    "run",
    "start_cluster",
    "tail",
]
