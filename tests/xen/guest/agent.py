"""Runs a program inside a guest through its agent, and gives back what it printed."""

import base64
import json
import time
from typing import Any

import libvirt
import libvirt_qemu

CALL_TIMEOUT_S = 60


def run(domain: libvirt.virDomain, *words: str, timeout_s: float) -> tuple[int, str, str]:
    """Run `words` as root in the guest; return exit code, standard output and standard error."""
    wish = {"path": words[0], "arg": list(words[1:]), "capture-output": True}
    pid = _ask(domain, "guest-exec", wish)["pid"]
    deadline_s = time.monotonic() + timeout_s
    while True:
        answer = _ask(domain, "guest-exec-status", {"pid": pid})
        if answer["exited"]:
            said = [base64.b64decode(answer.get(key, "")).decode(errors="replace") for key in ("out-data", "err-data")]
            return int(answer.get("exitcode", -1)), said[0], said[1]
        assert time.monotonic() < deadline_s, f"{words[0]} did not end within {timeout_s} s in the guest"
        time.sleep(1.0)


def _ask(domain: libvirt.virDomain, name: str, words: dict[str, Any]) -> dict[str, Any]:
    command = json.dumps({"execute": name, "arguments": words})
    found: dict[str, Any] = json.loads(libvirt_qemu.qemuAgentCommand(domain, command, CALL_TIMEOUT_S, 0))["return"]
    return found
