"""What a result must say of where it came from: machine, kernel, commit, programs.

Refuses to do: naming the host or its folders.
"""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from experiments.namespaces import PATH

PACKAGES: Final = ("vsftpd", "lftp", "dcmtk", "erlang-base", "orthanc", "iproute2")


def describe() -> dict[str, Any]:
    """Return machine, kernel, versions and commit; what cannot be found out is ""."""
    return {
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "processor": _field("/proc/cpuinfo", "model name"),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": _field("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        "python": platform.python_version(),
        "fascicle": metadata.version("fascicle"),
        "commit": commit(),
        "programs": {name: version for name in PACKAGES if (version := _package(name))},
    }


def commit() -> str:
    """Return the commit of the sources, with `+` when they differ from it; "" outside a checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    head = _print("git", "-C", str(root), "rev-parse", "--short=12", "HEAD")
    return head + "+" * bool(_print("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"))


def _package(name: str) -> str:
    return _print("dpkg-query", "-W", "-f", "${Version}", name)


def _print(*words: str) -> str:
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=20, env={**os.environ, "PATH": PATH}
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _field(path: str, name: str, separator: str = ":") -> str:
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(separator)[2].strip() for line in lines if line.startswith(name)), "")
