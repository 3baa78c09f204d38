"""Logs: modules ask for their loggers before the process's entry point has said where events go."""

import json
import subprocess
import sys

PROGRAM = """
from transfer import log
logger = log.get_logger(part="store")  # as modules do when they are imported
log.configure(role="node-1", level="info")
logger.debug("not_wanted")
logger.warning("object_quarantined", object_id="ab")
"""


def test_events_are_json_lines_on_standard_error_at_the_level_that_was_configured() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True)
    assert run.stdout == ""
    event = json.loads(run.stderr)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "object_quarantined",
        "level": "warning",
        "role": "node-1",
        "part": "store",
        "object_id": "ab",
    }
