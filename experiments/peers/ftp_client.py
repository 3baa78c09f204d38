"""Sends files by FTP over one connection, one after another, and prints the seconds from connect to quit (S2).

python -m experiments.peers.ftp_client ADDRESS PORT FILE...
"""

import ftplib
import json
import sys
import time
from pathlib import Path


def upload_s(address: str, port: int, files: list[Path]) -> float:
    """Send `files`; return the seconds from connect to quit."""
    begin = time.perf_counter()
    with ftplib.FTP() as ftp:  # noqa: S321  (the baseline)
        ftp.connect(address, port, timeout=600)
        ftp.login()
        ftp.cwd("incoming")
        for file in files:
            with file.open("rb") as source:
                ftp.storbinary(f"STOR {file.name}", source)
        ftp.quit()
    return time.perf_counter() - begin


if __name__ == "__main__":
    print(json.dumps({"seconds": upload_s(sys.argv[1], int(sys.argv[2]), [Path(name) for name in sys.argv[3:]])}))
