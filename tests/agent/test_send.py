"""What `send` says of a transfer."""

import os
from pathlib import Path

import msgspec

from agent.send import _Send
from transfer.errors import NotDicomError, UnusableFileError
from transfer.inspection import SourceFile
from transfer.outcomes import Outcome, SendOptions, SendResult


def test_names_that_are_not_utf_8_do_not_keep_the_summary_from_being_said() -> None:
    odd = Path(os.fsdecode(b"caf\xe9"))
    command = _Send(SendOptions(), as_json=True)
    command._unlisted.append(UnusableFileError(f"{odd}: the folder cannot be listed"))
    outcomes = [
        Outcome(SourceFile(odd, "caf%E9", 1, named=False), error=NotDicomError(f"{odd}: not DICOM")),
        Outcome(SourceFile(odd, "caf%E9", 1), error=UnusableFileError(f"{odd}: the file is empty")),
    ]
    said = msgspec.json.decode(msgspec.json.encode(command._summary(SendResult(outcomes, None), 1.0, 0.0)))
    assert said["ignored_files"] == ["caf\\xe9"]
    assert said["failures"] == [
        {"file": "caf\\xe9", "code": "unusable_file", "reason": "caf\\xe9: the file is empty"},
        {"file": "", "code": "unusable_file", "reason": "caf\\xe9: the folder cannot be listed"},
    ]
