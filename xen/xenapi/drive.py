"""A first-boot drive as a disk of the pool: made with our marks, filled over HTTP, attached, replaced.

    VDI.create (marked)  ->  PUT /import_raw_vdi  ->  VBD.create

A crash between two of them leaves a marked disk that no machine has, which planning removes. The upload is the pool's
HTTP interface beside XenAPI; its success is that of the task that it is given. Refuses to do: the drive's contents.
"""

import http.client
import ssl
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from transfer.errors import FascicleError, UnreachableError
from xen.observed import MIB
from xen.xenapi import marks
from xen.xenapi.session import PoolSession
from xen.xenapi.tasks import wait_task
from xen.xenapi.transport import NotSentError, open_connection

HOPS_MAX: Final = 4
REDIRECTS: Final = frozenset({301, 302, 307, 308})


class Uploads:
    """Fills disks of a pool."""

    def __init__(
        self, session: PoolSession, context: ssl.SSLContext, *, timeout_s: float, task_timeout_s: float
    ) -> None:
        self._session, self._context = session, context
        self._timeout_s, self._task_timeout_s = timeout_s, task_timeout_s

    def fill(self, disk: str, image: bytes, label: str) -> None:
        """Write `image` to the beginning of the disk.

        Raises:
            UnreachableError: it was not taken whole.
        """
        task = str(self._session.call("task.create", label, "first-boot drive"))
        try:
            self._put(disk, image, task)
        except (OSError, http.client.HTTPException, NotSentError) as error:
            self._session.call("task.destroy", task)
            raise UnreachableError(f"the first-boot drive was not taken: {error or type(error).__name__}") from error
        except FascicleError:
            self._session.call("task.destroy", task)
            raise
        wait_task(self._session, "import_raw_vdi", task, timeout_s=self._task_timeout_s)

    def _put(self, disk: str, image: bytes, task: str) -> None:
        login = self._session.login
        words = {"session_id": login.reference, "vdi": disk, "format": "raw", "task_id": task}
        url = f"{login.url}/import_raw_vdi?{urlencode(words, quote_via=quote)}"
        for _ in range(HOPS_MAX):
            parts = urlsplit(url)
            connection = open_connection(parts.netloc, self._context, self._timeout_s)
            try:
                connection.request("PUT", f"{parts.path}?{parts.query}", body=image)
                answer = connection.getresponse()
                answer.read()
            finally:
                connection.close()
            if answer.status in REDIRECTS and (answer.getheader("Location") or "").startswith("https://"):
                url = answer.getheader("Location") or ""
                continue
            if answer.status != http.client.OK:
                raise UnreachableError(f"the first-boot drive was not taken: HTTP status {answer.status}")
            return
        raise UnreachableError("the first-boot drive was not taken: the members of the pool send us round in circles")


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """Which machine (reference) gets a drive on which storage (reference); its node's name and cluster."""

    machine: str
    storage: str
    name: str
    cluster: str


def attach(session: PoolSession, uploads: Uploads, to: Attachment, image: bytes) -> None:
    """Make a drive for a halted machine, fill it and attach it."""
    size = -(-max(len(image), 1) // MIB) * MIB
    disk = session.call("VDI.create", _disk_record(to.storage, size, to.name, to.cluster))
    uploads.fill(disk, image, f"fascicle {to.name}")
    devices: list[str] = session.call("VM.get_allowed_VBD_devices", to.machine)
    session.call("VBD.create", _device_record(to.machine, disk, devices[0]))


def _disk_record(storage: str, size: int, name: str, cluster: str) -> dict[str, Any]:
    return {
        "name_label": f"{name} first boot",
        "name_description": "tells the node its name and how to enrol; of no use once it has",
        "SR": storage,
        "virtual_size": str(size),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {marks.CLUSTER: cluster, marks.DRIVE: name},
    }


def _device_record(machine: str, disk: str, device: str) -> dict[str, Any]:
    return {
        "VM": machine,
        "VDI": disk,
        "userdevice": device,
        "bootable": False,
        "mode": "RW",  # a disk of an HVM guest cannot be read-only (DISK_VBD_MUST_BE_READWRITE_FOR_HVM)
        "type": "Disk",
        "empty": False,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
