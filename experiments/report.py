"""results.json -> table.md and plots, each a pure function of results, so that they can be made again at any time.

Refuses to do: measuring; failing for want of matplotlib (the table says that there are no plots).
"""

from pathlib import Path

from experiments.results import Results
from experiments.table import table
from transfer.errors import StorageError


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write the table and, where matplotlib is installed, the plots; return their paths.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        return _write(results, folder)
    except OSError as error:
        raise StorageError(f"{folder}: the report cannot be written: {error.strerror}") from error


def _write(results: Results, folder: Path) -> list[Path]:
    text = table(results)
    paths = [folder / "table.md"]
    try:
        from experiments.plots import draw  # noqa: PLC0415  # slow to import, and an extra
    except ImportError:
        text += "\nNo plots: matplotlib is not installed (pip install fascicle[experiments]).\n"
    else:
        paths += draw(results, folder)
    paths[0].write_text(text)
    return paths
