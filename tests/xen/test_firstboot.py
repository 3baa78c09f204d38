"""The first-boot drive, read back by another reader than the one that wrote it: what cloud-init would find."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.xen.fake_cloud import read_drive
from xen.firstboot import FirstBoot, files, image

BOOT = FirstBoot(name="node-07", token="fascicle1.abc", host="node-07.example.org", port=9001, failure_domain="9f-host")


def test_the_drive_says_who_the_node_is_and_how_to_enrol() -> None:
    told = read_drive(image(BOOT))
    assert told == {
        "name": "node-07",
        "token": "fascicle1.abc",
        "advertise": "node-07.example.org:9001",
        "domain": "9f-host",
        "network": "",
    }


def test_it_is_what_cloud_init_looks_for() -> None:
    """A label that NoCloud knows, at the place that ISO 9660 has it (ECMA-119 8.4.7: bytes 41-72 of sector 16)."""
    made = image(BOOT)
    assert made[16 * 2048 + 1 : 16 * 2048 + 6] == b"CD001"
    assert made[16 * 2048 + 40 : 16 * 2048 + 72].rstrip() == b"cidata"
    assert len(made) < 1 << 20


def test_the_token_is_removed_after_it_was_used_and_the_node_started_only_then() -> None:
    user = json.loads(files(BOOT)["user-data"].removeprefix("#cloud-config\n"))
    assert user["write_files"] == [{"path": "/etc/fascicle/token", "content": "fascicle1.abc", "permissions": "0600"}]
    (command,) = user["runcmd"]
    assert command[:2] == ["sh", "-c"]
    enrolling, _, then = command[2].partition("\ndone && ")
    assert enrolling.startswith("tries=0\nuntil fascicle enroll --token ")
    assert then.split(" && ") == ["rm -f /etc/fascicle/token", "systemctl enable --now fascicle-node"]
    assert "fascicle1.abc" not in command[2]


@pytest.mark.parametrize(("codes", "tries", "end"), [("0", 1, 0), ("3 3 0", 3, 0), ("3 2 0", 2, 2), ("2 0", 1, 2)])
def test_a_gateway_that_does_not_answer_is_asked_again_and_one_that_refuses_is_not(
    tmp_path: Path, codes: str, tries: int, end: int
) -> None:
    """The shell's words, run with another `fascicle`, which ends with these codes one after the other."""
    script = json.loads(files(BOOT)["user-data"].removeprefix("#cloud-config\n"))["runcmd"][0][2]
    (tmp_path / "codes").write_text(codes.replace(" ", "\n") + "\n")
    for name, text in {
        "fascicle": 'cd "$HOME"; echo "$1" >>tried; code=$(head -n 1 codes); sed -i 1d codes; exit "$code"',
        "sleep": "true",
        "rm": 'echo "$0 $*" >>"$HOME/removed"',
        "systemctl": 'echo "$*" >"$HOME/started"',
        "cat": "echo token",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}, timeout=60
    )
    assert done.returncode == end
    assert (tmp_path / "tried").read_text().count("enroll") == tries
    assert (tmp_path / "started").exists() == (tmp_path / "removed").exists() == (end == 0)


def test_an_address_that_the_file_gives_reaches_the_guest() -> None:
    boot = FirstBoot(
        name="node-07",
        token="t",
        host="10.1.0.17",
        port=9001,
        failure_domain="h",
        address="10.1.0.17/24",
        router="10.1.0.1",
        name_servers=("10.1.0.2",),
    )
    card = json.loads(read_drive(image(boot))["network"])["ethernets"]["e*"]
    assert card["addresses"] == ["10.1.0.17/24"]
    assert card["routes"] == [{"to": "default", "via": "10.1.0.1"}]
    assert card["nameservers"] == {"addresses": ["10.1.0.2"]}


def test_the_token_is_not_shown() -> None:
    assert "fascicle1" not in repr(BOOT)


def test_what_a_pool_calls_its_hosts_runs_no_command() -> None:
    boot = FirstBoot(name="n", token="t", host="fd00::16", port=9001, failure_domain="x; reboot")
    told = read_drive(image(boot))
    assert (told["advertise"], told["domain"]) == ("[fd00::16]:9001", "x; reboot")
