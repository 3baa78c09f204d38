"""FTP as in the paper (S2): vsftpd and Python's ftplib, one connection, one file after another; and lftp with 8.

ftplib's seconds are from connect to quit, without a flush, as the paper measured; lftp's are those of its process.
"""

import json
import os
import pwd
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from experiments.namespaces import program
from experiments.peers.base import (
    Job,
    Outcome,
    Output,
    Running,
    count_files,
    free_ports,
    lacking,
    open_process,
    require_success,
    wait_listening,
)

CONNECTIONS: Final = 8
CONFIGURATION: Final = """\
listen=YES
listen_address={address}
listen_port={port}
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root={root}
anon_world_readable_only=NO
write_enable=YES
anon_upload_enable=YES
local_enable=NO
xferlog_enable=NO
connect_from_port_20=NO
pasv_address={address}
secure_chroot_dir={empty}
{unprivileged}
"""


@dataclass(frozen=True)
class Ftp:
    """ftplib to vsftpd."""

    name: str = "ftp"
    by_nodes: bool = False

    def missing(self) -> str:
        """Return what is not installed."""
        return lacking(("vsftpd", "vsftpd"))

    @contextmanager
    def open(self, job: Job) -> Iterator[Running]:
        """Start vsftpd."""
        with open_vsftpd(job) as (port, pid):
            client = [sys.executable, "-m", "experiments.peers.ftp_client", job.link.server.address, port, *job.files]
            yield Running([pid], [client], lambda: arrived(job), _read_seconds)


@dataclass(frozen=True)
class Lftp:
    """`lftp mirror` with 8 connections to vsftpd."""

    name: str = "lftp"
    by_nodes: bool = False

    def missing(self) -> str:
        """Return what is not installed."""
        return lacking(("vsftpd", "vsftpd"), ("lftp", "lftp"))

    @contextmanager
    def open(self, job: Job) -> Iterator[Running]:
        """Start vsftpd."""
        with open_vsftpd(job) as (port, pid):
            mirror = f"mirror -R --parallel={CONNECTIONS} --no-perms {job.files[0].parent} incoming"
            address = f"ftp://{job.link.server.address}:{port}"
            script = f"set ftp:ssl-allow no; set cmd:fail-exit yes; open {address}; {mirror}"
            yield Running([pid], [[program("lftp"), "-c", script]], lambda: arrived(job), _read_nothing)


def _read_seconds(outputs: Sequence[Output]) -> Outcome:
    require_success(outputs)
    return Outcome(float(json.loads(outputs[0].text)["seconds"]))


def _read_nothing(outputs: Sequence[Output]) -> Outcome:
    require_success(outputs)
    return Outcome()


def arrived(job: Job) -> int:
    """Return how many files are as large as the smallest that was sent."""
    return count_files(job.folder / "root" / "incoming", min(file.stat().st_size for file in job.files))


@contextmanager
def open_vsftpd(job: Job) -> Iterator[tuple[int, int]]:
    """Run vsftpd with its root in the job's folder; yield its port and process id."""
    root, empty = job.folder / "root", job.folder / "empty"
    (root / "incoming").mkdir(parents=True)
    empty.mkdir()
    as_root = os.geteuid() == 0
    if as_root:
        user = pwd.getpwnam("ftp")
        os.chown(root / "incoming", user.pw_uid, user.pw_gid)
    [port] = free_ports(1)
    settings = {"address": job.link.server.address, "port": port, "root": root, "empty": empty}
    file, log = job.folder / "vsftpd.conf", job.folder / "vsftpd.log"
    file.write_text(CONFIGURATION.format(**settings, unprivileged="" if as_root else "run_as_launching_user=YES"))
    file.chmod(0o600)
    with open_process(job.link.server.command(program("vsftpd"), file), log) as process:
        wait_listening(job, [port], process, log)
        yield port, process.pid
