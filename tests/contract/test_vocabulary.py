"""The vocabulary of the service and that of the proto are one."""

from __future__ import annotations

import enum
import re
from pathlib import Path

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from gatebook import errors, values
from gatebook.replay.difference import DifferenceKind
from gatebook.replay.world import EditKind
from gatebook.v1 import access_service_pb2, error_reason_pb2, policy_service_pb2, replay_pb2, types_pb2

PROTO = Path(__file__).parents[2] / "proto/gatebook/v1"
RESERVED = re.compile(r"// .*Reserved for a later version\.\n\s*([A-Z_0-9]+) = ")
ENUMS = [
    (values.Effect, types_pb2.Effect, "EFFECT_"),
    (values.Reason, types_pb2.ReasonCode, "REASON_CODE_"),
    (values.MaskKind, types_pb2.MaskKind, "MASK_KIND_"),
    (values.ObligationKind, types_pb2.ObligationKind, "OBLIGATION_KIND_"),
    (values.Severity, policy_service_pb2.Severity, "SEVERITY_"),
    (EditKind, access_service_pb2.EditKind, "EDIT_KIND_"),
    (DifferenceKind, replay_pb2.DifferenceKind, "DIFFERENCE_KIND_"),
]


def _subclasses(base: type[errors.GatebookError]) -> set[type[errors.GatebookError]]:
    return {base}.union(*(_subclasses(child) for child in base.__subclasses__()))


@pytest.mark.parametrize(("ours", "theirs", "prefix"), ENUMS, ids=[ours.__name__ for ours, _, _ in ENUMS])
def test_enums_agree(ours: type[enum.IntEnum], theirs: EnumTypeWrapper, prefix: str) -> None:
    """An enum of `values` has the names and numbers of its namesake, but for those reserved for later."""
    reserved = set(RESERVED.findall((PROTO / "types.proto").read_text()))
    expected = {prefix + member.name: member.value for member in ours}

    actual = {name: number for name, number in theirs.items() if name not in reserved or name in expected}

    assert expected == actual


def test_every_error_reason_has_an_exception() -> None:
    """The reasons of exceptions are exactly those of the proto; UNSPECIFIED is never sent."""
    names = error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    expected = {name.removeprefix("ERROR_REASON_") for name in names} - {"UNSPECIFIED"}

    assert expected == {cls.reason for cls in _subclasses(errors.GatebookError)}


def test_every_error_reason_has_an_example() -> None:
    """The comment of each error reason but UNSPECIFIED shows an example of its metadata."""
    text = (PROTO / "error_reason.proto").read_text()
    names = list(error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name)

    with_example = re.findall(r"// Example: metadata \{.*\}\.\n  ([A-Z_]+) = ", text)

    assert [name for name in names if name != "ERROR_REASON_UNSPECIFIED"] == with_example
