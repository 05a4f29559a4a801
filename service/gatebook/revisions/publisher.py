"""Who makes a revision active, and what lets them.

Owns what a publish asks of the rim, at the moment at which it is carried out: a right that was revoked
while a publish waited for its turn is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from gatebook.compiler.program import Program
from gatebook.errors import PermissionDeniedError
from gatebook.policy.gatebook_set import POLICY_SET, ZONE
from gatebook.values import Entity


class Publisher(msgspec.Struct, frozen=True):
    """Who publishes: the id that the book names, and the rights."""

    id: str
    may_publish: Callable[[str, str], bool]
    """Whether they may make this (`policy_set` or `directory`) of this policy set active."""
    keeps_right: Callable[[Program], bool]
    """Whether they could publish `gatebook` under this draft of it."""
    subject: Entity | None = None
    """The person whom the caller is, if it is one."""

    def require(self, what: str, policy_set: str = "") -> None:
        """Lets them publish.

        Raises:
            PermissionDeniedError: they may not, whether or not there is such a set.
        """
        if not (self.may_publish(what, policy_set) or self.is_confined(what, policy_set)):
            raise PermissionDeniedError

    def is_confined(self, what: str, policy_set: str) -> bool:
        """Tells whether they may publish a set for the sake of zones that they administer, and not the rest of it."""
        if what != POLICY_SET or self.subject is None or self.may_publish(what, policy_set):
            return False
        return self.may_publish(ZONE, policy_set)


NOBODY: Final = Publisher("", lambda _what, _set: False, lambda _program: False)
"""Who may publish nothing: stands for somebody of whom nothing is known."""
THE_SERVICE: Final = Publisher("gatebook", lambda _what, _set: True, lambda _program: True)
"""The service itself, for whoever started it: who has the data directory has everything in it."""
