"""Which sections of a model decide a request, where that is not `r`, `p`, `e` and `m`."""

from __future__ import annotations

import msgspec

PARTS = ("rtype", "ptype", "etype", "mtype")


class EnforceContext(msgspec.Struct, frozen=True):
    """Names the sections of a model; it is given as the first value of a request, as in Casbin."""

    rtype: str = "r"
    ptype: str = "p"
    etype: str = "e"
    mtype: str = "m"

    @classmethod
    def of_suffix(cls, suffix: str) -> EnforceContext:
        """Returns the sections of one number: `r2`, `p2`, `e2` and `m2` for `2`."""
        return cls(f"r{suffix}", f"p{suffix}", f"e{suffix}", f"m{suffix}")


def context_of(value: object) -> EnforceContext | None:
    """Returns the context that a value is, be it ours or Casbin's; None of any other value."""
    if isinstance(value, EnforceContext):
        return value
    # By the name of its class: to look for attributes would run whatever an object of a caller's does for one.
    if type(value).__name__ != EnforceContext.__name__ or not all(hasattr(value, part) for part in PARTS):
        return None
    return EnforceContext(*(str(getattr(value, part)) for part in PARTS))
