"""What is in the node image beside Debian's packages: their names, and small files of ours, as a table.

The image takes its first-boot configuration from a drive (`xen.firstboot`) and nothing from anywhere else: no server of
metadata is asked, no password is set, no one can log in over the network. Refuses to do: making anything.
"""

from typing import Final

SUITE: Final = "bookworm"
KERNEL: Final = "linux-image-cloud-amd64"  # has Xen's and virtio's drivers, and netem
PACKAGES: Final = (
    KERNEL,
    "ca-certificates",
    "cloud-guest-utils",  # growpart: the disk grows to what the pool file says
    "cloud-init",
    "dbus",
    "e2fsprogs",
    "fdisk",
    "initramfs-tools",
    "iproute2",
    "netbase",
    "python3",
    "qemu-guest-agent",  # tells the address to libvirt
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",  # certificates and tickets need a clock
)
PYTHON_TAG: Final = "3.11"  # the suite's
PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "linux_x86_64")
LIBRARIES: Final = "usr/local/lib/python3.11/dist-packages"

LAUNCHER: Final = """\
#!/usr/bin/python3
import sys

from fascicle.cli import main

sys.exit(main())
"""
UNIT: Final = """\
# The storage node; enabled at the first boot, when it has enrolled.
[Unit]
Description=Fascicle storage node
Wants=network-online.target
After=network-online.target
ConditionPathExists=/var/lib/fascicle/node.toml
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=/usr/local/bin/fascicle node serve --config /var/lib/fascicle/node.toml
Restart=always
RestartSec=1
TimeoutStopSec=30
User=fascicle
Group=fascicle
StateDirectory=fascicle
StateDirectoryMode=0700
LimitNOFILE=65536
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077

[Install]
WantedBy=multi-user.target
"""
CLOUD: Final = """\
datasource_list: [NoCloud, None]
datasource: {NoCloud: {fs_label: cidata}}
disable_root: true
ssh_pwauth: false
apt_preserve_sources_list: true
system_info: {network: {renderers: [networkd]}}
growpart: {mode: auto, devices: [/]}
resize_rootfs: true
"""
# No stage asks for anything that only a cloud has; what is left is what the drive can say.
CLOUD_MODULES: Final = """\
cloud_init_modules: [seed_random, bootcmd, write-files, growpart, resizefs, set_hostname, update_hostname]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user, final-message]
"""
# Thirty nodes may boot at once from one disk, or under software emulation: a slow start is no failed start.
PATIENCE: Final = "[Manager]\nDefaultTimeoutStartSec=15min\nDefaultDeviceTimeoutSec=15min\n"
FILES: Final = {
    "etc/fstab": ("UUID={uuid} / ext4 defaults,errors=remount-ro 0 1\n", 0o644),
    "etc/hostname": ("node\n", 0o644),
    "etc/hosts": ("127.0.0.1 localhost\n::1 localhost\n", 0o644),
    "etc/apt/sources.list": ("# Packages come with the next image (docs/xen.md: upgrade node by node).\n", 0o644),
    "etc/cloud/cloud.cfg.d/90-fascicle.cfg": (CLOUD + CLOUD_MODULES, 0o644),
    "etc/cloud/ds-identify.cfg": ("policy: enabled\n", 0o644),
    "etc/systemd/system/fascicle-node.service": (UNIT, 0o644),
    "etc/systemd/system.conf.d/10-patience.conf": (PATIENCE, 0o644),
    "usr/local/bin/fascicle": (LAUNCHER, 0o755),
    "boot/grub/grub.cfg": (
        "set timeout=0\n"
        "menuentry Node {{\n"
        "  insmod ext2\n"
        "  search --no-floppy --fs-uuid --set=root {uuid}\n"
        "  linux /boot/vmlinuz root=UUID={uuid} ro console=tty0 console=hvc0 console=ttyS0 net.ifnames=1\n"
        "  initrd /boot/initrd.img\n"
        "}}\n",
        0o644,
    ),
}
# What differs from one making to the next and is not needed: made anew by the guest, or never.
EMPTIED: Final = (
    "run",
    "tmp",
    "var/cache/apt",
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/lib/apt/lists",
    "var/lib/cloud",
    "var/lib/systemd/catalog",
    "var/log",
    "var/tmp",
)
REMOVED: Final = (
    "etc/apt/sources.list.d",
    "etc/resolv.conf",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock",
)
