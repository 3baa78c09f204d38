"""A libvirt of the test's own, with QEMU's software emulation: started in a network namespace, ended and removed after.

Its state, configuration and socket are in the test's folder (a mount namespace hides the host's own), so that no
machine, network or pool of this host is seen or changed. The bridge that guests are on is in the network namespace,
too, and whatever talks to them runs there (`Hypervisor.command`).
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import libvirt

libvirt.registerErrorHandler(lambda _context, _error: None, None)  # else each try to connect is printed
ADDRESS, GUEST = "10.77.0.1", "10.77.0.11"
BRIDGE = "guests"
HIDDEN = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/run/libvirt")
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "libvirtd": "libvirt-daemon and libvirt-daemon-driver-qemu",
    "ip": "iproute2",
    "unshare": "util-linux",
}
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
NICE = 10
# x86-64-v2, which the wheels of the image want; what emulates more of a processor is slower.
TEMPLATE = """
<domain type='qemu'><name>node image</name><memory unit='MiB'>1024</memory><vcpu>1</vcpu>
 <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
 <features><acpi/><apic/></features>
 <cpu mode='custom' match='exact' check='none'><model fallback='allow'>Nehalem</model></cpu>
 <on_crash>destroy</on_crash>
 <devices>
  <emulator>{emulator}</emulator>
  <disk type='file' device='disk'><driver name='qemu' type='raw' cache='unsafe'/><source file='{image}'/>
   <target dev='vda' bus='virtio'/></disk>
  <interface type='network'><source network='guests'/><model type='virtio'/></interface>
  <serial type='file'><source path='{console}'/></serial>
  <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  <memballoon model='none'/>
 </devices>
</domain>"""


def why_not() -> str:
    """Return why no guest can be had here; "" where it can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if absent:
        return f"not installed: {', '.join(f'{name} (Debian: {PROGRAMS[name]})' for name in absent)}"
    if os.geteuid() != 0:
        return "a network namespace and a bridge need root"
    return ""


@dataclass
class Hypervisor:
    """A libvirt that runs."""

    folder: Path
    namespace: str
    uri: str
    console: Path

    def command(self, *words: object) -> list[str]:
        """Return the command line that runs `words` where the guests are reached."""
        return ["ip", "netns", "exec", self.namespace, *map(str, words)]


@contextmanager
def open_hypervisor(folder: Path, image: Path) -> Iterator[Hypervisor]:
    """Start libvirt with a network, a storage pool, and the template of the node image."""
    with ExitStack() as stack:
        namespace = f"fxg{os.getpid()}"
        _call("ip", "netns", "add", namespace)
        stack.callback(_call, "ip", "netns", "delete", namespace)
        _make_bridge(namespace)
        uri = f"qemu:///system?socket={folder}/socket/libvirt-sock"
        made = Hypervisor(folder, namespace, uri, folder / "console.log")
        stack.callback(_end, _start(made))
        connection = _connect(made.uri)
        stack.callback(connection.close)
        _furnish(connection, made, image)
        stack.callback(_switch_off, connection)
        yield made


def _make_bridge(namespace: str) -> None:
    for words in (
        ("link", "set", "lo", "up"),
        ("link", "add", BRIDGE, "type", "bridge"),
        ("addr", "add", f"{ADDRESS}/24", "dev", BRIDGE),
        ("link", "set", BRIDGE, "up"),
    ):
        _call("ip", "-n", namespace, *words)


def _start(made: Hypervisor) -> "subprocess.Popen[bytes]":
    (made.folder / "socket").mkdir()
    hidden = {each: made.folder / f"state{each.replace('/', '-')}" for each in HIDDEN}
    for path, instead in hidden.items():
        instead.mkdir()
        Path(path).mkdir(parents=True, exist_ok=True)
    etc = hidden["/etc/libvirt"]
    (etc / "libvirtd.conf").write_text(f'unix_sock_dir = "{made.folder}/socket"\nauth_unix_rw = "none"\n')
    (etc / "qemu.conf").write_text(
        'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\n'
        'remember_owner = 0\nstdio_handler = "file"\n'
    )
    hidden |= {path: _with_user(made.folder, path) for path in ("/etc/passwd", "/etc/group")}
    mounts = "".join(f"mount --bind '{instead}' '{path}' && " for path, instead in hidden.items())
    config, pid = etc / "libvirtd.conf", made.folder / "libvirtd.pid"
    script = f"{mounts}exec libvirtd --config '{config}' --pid-file '{pid}'"
    with (made.folder / "libvirtd.log").open("wb") as log:
        return subprocess.Popen(
            made.command("nice", "-n", NICE, "unshare", "--mount", "--propagation", "private", "sh", "-c", script),
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": PATH},
        )


def _with_user(folder: Path, path: str) -> Path:
    """Return a copy of a file of users or groups with the one that Debian's libvirt looks for."""
    copied = folder / Path(path).name
    text = Path(path).read_text()
    user, group = "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin\n", "libvirt-qemu:x:64055:\n"
    if "libvirt-qemu:" not in text:
        text += user if path.endswith("passwd") else group
    copied.write_text(text)
    return copied


def _connect(uri: str, patience_s: float = 60.0) -> libvirt.virConnect:
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return libvirt.open(uri)
        except libvirt.libvirtError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)


def _furnish(connection: libvirt.virConnect, made: Hypervisor, image: Path) -> None:
    images = made.folder / "images"
    images.mkdir()
    _call("cp", "--sparse=always", image, images / "node.raw")
    pool = f"<pool type='dir'><name>images</name><target><path>{images}</path></target></pool>"
    connection.storagePoolDefineXML(pool).create()
    network = f"<network><name>guests</name><forward mode='bridge'/><bridge name='{BRIDGE}'/></network>"
    connection.networkDefineXML(network).create()
    emulator = shutil.which("qemu-system-x86_64", path=PATH)
    connection.defineXML(TEMPLATE.format(emulator=emulator, image=images / "node.raw", console=made.console))


def _switch_off(connection: libvirt.virConnect) -> None:
    for domain in connection.listAllDomains():
        if domain.isActive():
            domain.destroy()


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait(30)


def _call(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, env={**os.environ, "PATH": PATH})
