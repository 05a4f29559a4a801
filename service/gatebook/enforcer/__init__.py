"""A drop-in for `casbin.Enforcer`: the same questions about the same files, answered by Gatebook's engine.

    from gatebook.enforcer import Enforcer

    enforcer = Enforcer("model.conf", "policy.csv")
    enforcer.enforce("ana", "report", "read")

It needs the extra `server`, and no server: nothing is served, and nothing is written into a book.
"""

from gatebook.enforcer.context import EnforceContext
from gatebook.enforcer.enforcer import Enforcer, Explanation
from gatebook.enforcer.writes import NotWritableError
from gatebook.expression.moments import AtTime

time_match = AtTime()
"""Casbin's `timeMatch` as the condition of a link: it asks the enforcer's clock."""

__all__ = ["EnforceContext", "Enforcer", "Explanation", "NotWritableError", "time_match"]
