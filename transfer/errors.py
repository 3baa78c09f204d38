"""The one tree of errors that Fascicle raises on purpose.

Every class fixes what callers decide by: `retryable` (the same step may succeed later), `exit_code` (of a
command, design section 12), `http_status` (of the gateway's answer), `dimse_status` (of a C-STORE response,
PS3.4 Table B.2-1) and `code` (the short name that travels on the wire). Foreign errors are wrapped once, where
they enter, `from` their cause. Refuses to do: formatting for terminals, logging.
"""

from typing import ClassVar

from transfer.comeback import read_pause_s


class FascicleError(Exception):
    """Root of the tree.

    `message` says what happened, to which object, and what to do; it never holds patient data. `retry_after_s`: when to
    come back, as whoever was too busy said (0.0: it did not).
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    dimse_status: ClassVar[int] = 0x0110  # processing failure

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class SettingsError(FascicleError):
    """A configuration file, environment variable or command-line value that cannot be used."""

    code = "settings"
    exit_code = 2


class UnusableFileError(FascicleError):
    """A source file that is not sent: not DICOM, truncated, empty, unreadable, vanished or still growing."""

    code = "unusable_file"
    dimse_status = 0xC000  # cannot understand


class NotDicomError(UnusableFileError):
    """Bytes that are not a DICOM Part 10 file."""

    code = "not_dicom"


class TruncatedError(UnusableFileError):
    """A DICOM file whose elements reach past its end."""

    code = "truncated"


class MismatchError(UnusableFileError):
    """A data set that is not the instance that the command around it names."""

    code = "mismatch"
    dimse_status = 0xA900  # data set does not match SOP class


class ProtocolError(FascicleError):
    """The peer broke the wire protocol: wrong version, frame, length, order or field."""

    code = "protocol"
    http_status = 400


class UnauthorisedError(FascicleError):
    """A certificate, ticket or role that does not allow what was asked."""

    code = "unauthorised"
    exit_code = 2
    http_status = 403
    dimse_status = 0x0124  # not authorised


class CorruptError(FascicleError):
    """Bytes that do not have the digest that they must have."""

    code = "corrupt"
    retryable = True


class NotSuitableError(FascicleError):
    """An object that an encoding cannot make smaller, or not in time: another encoding, or none, is the answer."""

    code = "not_suitable"


class NotStoredError(FascicleError):
    """An object, study or transfer that is not known here."""

    code = "not_stored"
    http_status = 404


class ConflictError(FascicleError):
    """A request that does not fit the state of what it names, such as a commit without receipts."""

    code = "conflict"
    http_status = 409


class FullError(FascicleError):
    """No room: a node, a spool or a quota. Retryable, because operators make room."""

    code = "full"
    retryable = True
    http_status = 507
    dimse_status = 0xA700  # out of resources


class BusyError(FascicleError):
    """A party that takes no more work for now."""

    code = "busy"
    retryable = True
    http_status = 503
    dimse_status = 0xA700


class UnreachableError(FascicleError):
    """A party that does not answer: refused, reset, timed out or gone in mid-sentence."""

    code = "unreachable"
    retryable = True
    exit_code = 3
    http_status = 503


class StorageError(FascicleError):
    """A disk that failed a write, a flush or a read."""

    code = "storage"
    retryable = True
    http_status = 500


class CrashedError(FascicleError):
    """A process of ours that keeps ending, or does not come up."""

    code = "crashed"


def _tree(root: type[FascicleError]) -> dict[str, type[FascicleError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def from_code(code: str, message: str) -> FascicleError:
    """Return the error that a peer named by `code`; an unknown code becomes the root class."""
    pause_s = read_pause_s(message) if code == BusyError.code else 0.0
    return _tree(FascicleError).get(code, FascicleError)(message, retry_after_s=pause_s)
