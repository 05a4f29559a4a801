"""The models and generated policies of Casbin's published benchmark, for the benchmarks that use them."""

from __future__ import annotations

TRIPLE = "sub, obj, act"


def model(
    matcher: str,
    *,
    request: str = TRIPLE,
    rule: str = TRIPLE,
    roles: str = "",
    effect: str = "some(where (p.eft == allow))",
) -> str:
    """Returns the text of a model."""
    return (
        f"[request_definition]\nr = {request}\n[policy_definition]\np = {rule}\n"
        + (f"[role_definition]\n{roles}\n" if roles else "")
        + f"[policy_effect]\ne = {effect}\n[matchers]\nm = {matcher}\n"
    )


def rbac(rules: int, users: int) -> str:
    """Returns Casbin's generated policy: ten rules an object, ten users a role."""
    lines = [f"p, group{number}, data{number // 10}, read" for number in range(rules)]
    lines += [f"g, user{number}, group{number // 10}" for number in range(users)]
    return "\n".join(lines) + "\n"
