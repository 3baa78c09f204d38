"""Which contexts are accepted, over everything that pynetdicom knows the names of."""

import pytest
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AllStoragePresentationContexts, sop_class

from tests.dicom.build import CT, EXPLICIT, IMPLICIT
from transfer.dicom.syntaxes import STORAGE
from transfer.dimse.contexts import agree, is_storage
from transfer.dimse.pdu import AgreedContext, ProposedContext


def test_every_storage_class_is_storage():
    assert all(is_storage(context.abstract_syntax) for context in AllStoragePresentationContexts)


def test_other_services_are_not():
    not_others = {"_STORAGE_CLASSES", "_NON_PATIENT_OBJECT_CLASSES", "_SERVICE_CLASSES"}
    others = [name for name in dir(sop_class) if name.endswith("_CLASSES") and name not in not_others]
    uids = {uid for name in others for uid in getattr(sop_class, name).values()}
    assert len(uids) > 60
    assert sorted(filter(is_storage, uids)) == []


def test_every_transfer_syntax_is_known():
    assert {str(uid) for uid in AllTransferSyntaxes if not uid.is_private} <= set(STORAGE)
    assert len(set(STORAGE)) == len(STORAGE)


@pytest.mark.parametrize(
    ("abstract", "transfer", "answer"),
    [
        (CT, (EXPLICIT, IMPLICIT), (0, EXPLICIT)),
        (CT, (IMPLICIT, EXPLICIT), (0, IMPLICIT)),
        (CT, ("9.9", "1.2.840.10008.1.2.5"), (0, "1.2.840.10008.1.2.5")),
        (CT, ("9.9",), (4, "")),
        ("1.2.840.10008.1.1", (IMPLICIT,), (0, IMPLICIT)),
        ("1.3.12.2.1107.5.9.1", (EXPLICIT,), (0, EXPLICIT)),  # Siemens, private storage
        ("1.2.840.10008.5.1.4.1.2.2.1", (IMPLICIT,), (3, "")),  # study root query
        ("", (IMPLICIT,), (3, "")),
    ],
)
def test_answers(abstract, transfer, answer):
    assert agree(ProposedContext(1, abstract, transfer)) == AgreedContext(1, *answer)
