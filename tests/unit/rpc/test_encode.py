"""Values as messages."""

from __future__ import annotations

import pytest

from gatebook.expression.tree import Call, Literal, Path
from gatebook.rpc import encode
from gatebook.v1 import types_pb2


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**100])
def test_a_number_that_no_message_holds_is_unknown(number: int) -> None:
    """A condition with a whole number beyond 64 bits is sent with null in its place, also within a list."""
    condition = Call("in", (Path(("row", "big")), Literal((number, 1))))

    _, items = encode.expression(condition).call.operands
    assert [None, "int_value"] == [value.WhichOneof("kind") for value in items.literal.list_value.values]
    assert types_pb2.Value() == encode.expression(Literal(number)).literal


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_the_largest_numbers_are_exact(number: int) -> None:
    """Whole numbers of 64 bits are sent as they are."""
    assert number == encode.expression(Literal(number)).literal.int_value
