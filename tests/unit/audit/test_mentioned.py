"""Whoever an entry names by pseudonym is found by it: no body has a pseudonym that searches do not look at."""

from __future__ import annotations

import hashlib

import pytest
from google.protobuf.descriptor import FieldDescriptor

from gatebook.audit.index import mentioned
from gatebook.audit.record import PERSONAL_IN_BODY
from gatebook.v1 import entry_pb2

BODIES = entry_pb2.AuditEntry.DESCRIPTOR.oneofs_by_name["body"].fields
OF_THEIR_OWN = {"decision": {"subject_pseudonym", "actor_pseudonym"}}
"""Which have a column of the index each."""


@pytest.mark.parametrize("body", BODIES, ids=lambda field: field.name)
def test_every_pseudonym_is_looked_at(body: FieldDescriptor) -> None:
    """A field that holds pseudonyms is among what concerns people, and is left out of what names nobody."""
    entry = entry_pb2.AuditEntry()
    message = getattr(entry, body.name)
    message.SetInParent()
    assert body.message_type is not None
    fields = body.message_type.fields_by_name
    names = {name for name in fields if "pseudonym" in name}
    expected = set()
    for name in names:
        pseudonym = hashlib.sha256(name.encode()).digest()[:16]
        if fields[name].is_repeated:
            getattr(message, name).append(pseudonym)
        else:
            setattr(message, name, pseudonym)
        if name not in OF_THEIR_OWN.get(body.name, ()):
            expected.add(pseudonym)

    assert expected == mentioned(entry)
    assert names <= set(PERSONAL_IN_BODY[body.name])
