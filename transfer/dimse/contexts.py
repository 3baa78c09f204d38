"""Which presentation contexts are accepted (PS3.8 9.3.3, PS3.4 annex B), as a decision over values.

Accepted are Verification and what can be stored: everything under the prefix of the composite storage classes, the
few storage classes that the standard puts elsewhere, and every class outside the standard's own root, because vendors'
private storage classes cannot be told from others by name (a private service that is not storage gets "unrecognised
operation" for its commands). Of the transfer syntaxes the first proposed that PS3.6 lists is taken: the sender knows
best what it holds, and nothing is decoded here. Refuses to do: all other services of the standard.
"""

from typing import Final

from transfer.dicom import syntaxes
from transfer.dimse.pdu import AgreedContext, ProposedContext

VERIFICATION: Final = "1.2.840.10008.1.1"
ACCEPTED, ABSTRACT_SYNTAX_NOT_SUPPORTED, TRANSFER_SYNTAXES_NOT_SUPPORTED = 0, 3, 4

_STANDARD_ROOT: Final = "1.2.840.10008."
_COMPOSITE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
_OTHER_STORAGE: Final = frozenset(
    {
        "1.2.840.10008.5.1.1.27",  # stored print (retired)
        "1.2.840.10008.5.1.1.29",  # hardcopy grayscale image (retired)
        "1.2.840.10008.5.1.1.30",  # hardcopy color image (retired)
        "1.2.840.10008.5.1.4.34.1",  # RT beams delivery instruction, trial (retired)
        "1.2.840.10008.5.1.4.34.7",  # RT beams delivery instruction
        "1.2.840.10008.5.1.4.34.10",  # RT brachy application setup delivery instruction
        "1.2.840.10008.5.1.4.38.1",  # hanging protocol
        "1.2.840.10008.5.1.4.39.1",  # color palette
        "1.2.840.10008.5.1.4.43.1",  # generic implant template
        "1.2.840.10008.5.1.4.44.1",  # implant assembly template
        "1.2.840.10008.5.1.4.45.1",  # implant template group
    }
)
_OTHER_SERVICES: Final = frozenset(  # query and retrieve of protocols and inventories, under the storage prefix
    {f"{_COMPOSITE_STORAGE}200.{n}" for n in (4, 5, 6)} | {f"{_COMPOSITE_STORAGE}201.{n}" for n in (2, 3, 4, 5, 6)}
)
_SYNTAXES: Final = frozenset(syntaxes.STORAGE)


def is_storage(sop_class_uid: str) -> bool:
    """Tell whether instances of a class are taken by C-STORE."""
    if not sop_class_uid.startswith(_STANDARD_ROOT):
        return bool(sop_class_uid)
    if sop_class_uid.startswith(_COMPOSITE_STORAGE):
        return sop_class_uid not in _OTHER_SERVICES
    return sop_class_uid in _OTHER_STORAGE


def agree(proposed: ProposedContext) -> AgreedContext:
    """Return the answer to one proposed context."""
    if proposed.abstract_syntax != VERIFICATION and not is_storage(proposed.abstract_syntax):
        return AgreedContext(proposed.context_id, ABSTRACT_SYNTAX_NOT_SUPPORTED, "")
    for syntax in proposed.transfer_syntaxes:
        if syntax in _SYNTAXES:
            return AgreedContext(proposed.context_id, ACCEPTED, syntax)
    return AgreedContext(proposed.context_id, TRANSFER_SYNTAXES_NOT_SUPPORTED, "")
