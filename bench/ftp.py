"""The baseline: a real vsftpd on the loopback, its own configuration in a temporary folder, and Python's ftplib."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.peers import ftp_client

VSFTPD = shutil.which("vsftpd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
CONFIGURATION = """\
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root={root}
write_enable=YES
anon_upload_enable=YES
local_enable=NO
xferlog_enable=NO
connect_from_port_20=NO
pasv_address=127.0.0.1
secure_chroot_dir={empty}
{unprivileged}
"""


@contextmanager
def open_server(folder: Path) -> Iterator[int]:
    """Run vsftpd with its root in `folder`/root; yield its port."""
    root, empty = folder / "root", folder / "empty"
    (root / "incoming").mkdir(parents=True)
    empty.mkdir()
    port = _free_port()
    as_root = os.geteuid() == 0
    if as_root:
        user = pwd.getpwnam("ftp")
        os.chown(root / "incoming", user.pw_uid, user.pw_gid)
    configuration = folder / "vsftpd.conf"
    configuration.write_text(
        CONFIGURATION.format(
            port=port, root=root, empty=empty, unprivileged="" if as_root else "run_as_launching_user=YES"
        )
    )
    configuration.chmod(0o600)
    assert VSFTPD is not None
    process = subprocess.Popen([VSFTPD, str(configuration)])
    try:
        _wait_until_listening(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def upload_s(port: int, files: Sequence[Path]) -> float:
    """Send `files` by ftplib, then `sync`; return the seconds from connect to the end of the sync."""
    begin = time.perf_counter()
    ftp_client.upload_s("127.0.0.1", port, list(files))
    os.sync()
    return time.perf_counter() - begin


def clear(folder: Path) -> None:
    """Remove what was uploaded, so that the next run writes new files."""
    for file in (folder / "root" / "incoming").iterdir():
        file.unlink()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_listening(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"vsftpd does not listen (exit code {process.poll()})")
