"""The half of Casbin's interface that an enforcer of ours does not have: what changes the policy.

Owns one precise refusal for each of those methods. Why there are none: a change that is made in the memory of one
process was reviewed by nobody, is in no revision, and is lost or half saved when the process ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from gatebook.errors import GatebookError

_INSTEAD = "change the file or the table that the rules come from, and call `load_policy()`"
_WRITES = {
    **{
        f"{verb}_{kind}{noun}": _INSTEAD
        for verb in ("add", "remove", "update")
        for kind in ("", "named_", "grouping_", "named_grouping_", "filtered_", "filtered_named_")
        for noun in ("policy", "policies", "policies_ex")
    },
    **dict.fromkeys(
        (
            "remove_filtered_grouping_policy",
            "remove_filtered_named_grouping_policy",
            "add_role_for_user",
            "add_role_for_user_in_domain",
            "add_permission_for_user",
            "delete_permission",
            "delete_permission_for_user",
            "delete_permissions_for_user",
            "delete_role",
            "delete_role_for_user",
            "delete_roles_for_user",
            "delete_roles_for_user_in_domain",
            "delete_user",
            "clear_policy",
            "save_policy",
        ),
        _INSTEAD,
    ),
    **dict.fromkeys(
        (
            "load_model",
            "set_model",
            "set_adapter",
            "set_watcher",
            "init_with_adapter",
            "init_with_file",
            "init_with_model_and_adapter",
            "load_filtered_policy",
            "load_increment_filtered_policy",
        ),
        "make a new `Enforcer` of the other model or source, and use that one from then on",
    ),
    **dict.fromkeys(
        ("set_effector", "set_role_manager", "set_named_role_manager", "get_role_manager", "get_named_role_manager"),
        "write what decides into the model: effects and role definitions are read from there alone",
    ),
    **dict.fromkeys(
        ("build_role_links", "init_rm_map", "enable_auto_build_role_links"),
        "remove the call: links are always up to date",
    ),
    **dict.fromkeys(
        ("enable_auto_save", "enable_auto_notify_watcher"),
        "remove the call: there is nothing to save or to tell of",
    ),
    "enable_enforce": "remove the call: there is no switch that allows everything",
    "get_model": "ask `get_policy()` and its like for rules; the model is the text that was given",
    "new_model": "give the path or the text of the model to `Enforcer`",
    **dict.fromkeys(("configure_logging", "enable_log"), "remove the call: an enforcer writes no log"),
    "get_adapter": "keep the adapter where it was made",
    "set_field_index": "name the fields `sub`, `obj`, `act` and `dom` in the model",
}
"""What an enforcer of Casbin's has besides questions, and what to do instead."""


class NotWritableError(GatebookError):
    """A method of Casbin's that changes an enforcer was called."""


class Writes:
    """Refuses what changes a policy, with a word on what to do instead."""

    # Unseen by type checkers and editors, which report such a call, or a misspelt question, where it is written.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., NoReturn]:
            """Returns what refuses, for a method that an enforcer does not have; so that it is the call that fails."""
            if name not in _WRITES:
                raise AttributeError(f"`Enforcer` has no attribute `{name}`")

            def refuse(*_args: object, **_kwargs: object) -> NoReturn:
                raise NotWritableError(f"`{name}` is not to be had: {_WRITES[name]}")

            return refuse
