"""The questions of Casbin's management interface: which rules and links there are.

Owns what `get_policy` and its like answer, which is what pycasbin answers to them, with these differences: the lists
are the caller's own, a type or a field that the model does not have is an error that says so, and what is asked
of a field `sub`, `obj` or `act` that a model does not have is nothing (Casbin takes the last field for it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gatebook.enforcer.loaded import Loaded
from gatebook.errors import InvalidRequestError

Wanted = str | Callable[[str], bool]
"""What a field must be: equal to a text, anything for the empty text, or what a function says."""


class Policies:
    """Answers what stands in the policy."""

    _loaded: Loaded

    def get_policy(self) -> list[list[str]]:
        """Returns the fields of every `p` rule, in the order in which rules are asked."""
        return self.get_named_policy("p")

    def get_named_policy(self, ptype: str) -> list[list[str]]:
        """Returns the fields of every rule of a type."""
        return [list(fields) for fields in self._loaded.fields_of(ptype)]

    def get_filtered_policy(self, field_index: int, *field_values: Wanted) -> list[list[str]]:
        """Returns the `p` rules whose fields from `field_index` on are these values; an empty one is any."""
        return self.get_filtered_named_policy("p", field_index, *field_values)

    def get_filtered_named_policy(self, ptype: str, field_index: int, *field_values: Wanted) -> list[list[str]]:
        """Returns the rules of a type whose fields from `field_index` on are these values."""
        return _filtered(self._loaded.fields_of(ptype), field_index, field_values)

    def has_policy(self, *params: str | list[str]) -> bool:
        """Tells whether there is a `p` rule of these fields, given one by one or as a list."""
        return self.has_named_policy("p", *params)

    def has_named_policy(self, ptype: str, *params: str | list[str]) -> bool:
        """Tells whether there is a rule of a type and of these fields."""
        known = ptype in self._loaded.policy_set.model.policies
        return known and _fields(params) in self._loaded.fields_of(ptype)

    def get_grouping_policy(self) -> list[list[str]]:
        """Returns the names of every `g` link."""
        return self.get_named_grouping_policy("g")

    def get_named_grouping_policy(self, ptype: str) -> list[list[str]]:
        """Returns the names of every link of a type."""
        return [list(names) for names in self._loaded.links_of(ptype)]

    def get_filtered_grouping_policy(self, field_index: int, *field_values: Wanted) -> list[list[str]]:
        """Returns the `g` links whose names from `field_index` on are these values; an empty one is any."""
        return self.get_filtered_named_grouping_policy("g", field_index, *field_values)

    def get_filtered_named_grouping_policy(
        self, ptype: str, field_index: int, *field_values: Wanted
    ) -> list[list[str]]:
        """Returns the links of a type whose names from `field_index` on are these values."""
        return _filtered(self._loaded.links_of(ptype), field_index, field_values)

    def has_grouping_policy(self, *params: str | list[str]) -> bool:
        """Tells whether there is a `g` link of these names, given one by one or as a list."""
        return self.has_named_grouping_policy("g", *params)

    def has_named_grouping_policy(self, ptype: str, *params: str | list[str]) -> bool:
        """Tells whether there is a link of a type and of these names."""
        known = ptype in self._loaded.policy_set.model.roles
        return known and _fields(params) in self._loaded.links_of(ptype)

    def get_all_subjects(self) -> list[str]:
        """Returns each subject that a rule of any type names, once."""
        return self._values_of_all("sub")

    def get_all_named_subjects(self, ptype: str) -> list[str]:
        """Returns each subject that a rule of a type names, once."""
        return self._values_of(ptype, "sub")

    def get_all_objects(self) -> list[str]:
        """Returns each object that a rule of any type names, once."""
        return self._values_of_all("obj")

    def get_all_named_objects(self, ptype: str) -> list[str]:
        """Returns each object that a rule of a type names, once."""
        return self._values_of(ptype, "obj")

    def get_all_actions(self) -> list[str]:
        """Returns each action that a rule of any type names, once."""
        return self._values_of_all("act")

    def get_all_named_actions(self, ptype: str) -> list[str]:
        """Returns each action that a rule of a type names, once."""
        return self._values_of(ptype, "act")

    def get_all_roles(self) -> list[str]:
        """Returns each role that somebody has by `g`, once."""
        return self.get_all_named_roles("g")

    def get_all_named_roles(self, ptype: str) -> list[str]:
        """Returns each role that somebody has by links of a type, once."""
        return _distinct(names[1] for names in self._loaded.links_of(ptype))

    def get_field_index(self, ptype: str, field: str) -> int:
        """Returns the place of a field among those of a type, from 0; -1 where there is none of that name."""
        names = self._loaded.names_of(ptype)
        return names.index(field) if field in names else -1

    def _values_of_all(self, field: str) -> list[str]:
        types = self._loaded.policy_set.model.policies
        return _distinct(value for ptype in types for value in self._values_of(ptype, field))

    def _values_of(self, ptype: str, field: str) -> list[str]:
        position = self.get_field_index(ptype, field)
        return [] if position < 0 else _distinct(fields[position] for fields in self._loaded.fields_of(ptype))


def _filtered(lines: Iterable[Sequence[str]], field_index: int, field_values: tuple[Wanted, ...]) -> list[list[str]]:
    return [list(fields) for fields in lines if _is_wanted(fields, field_index, field_values)]


def _is_wanted(fields: Sequence[str], field_index: int, field_values: tuple[Wanted, ...]) -> bool:
    if field_index < 0 or field_index + len(field_values) > len(fields):
        message = f"there are {len(fields)} fields, of which the filter names one past the last: name fewer"
        raise InvalidRequestError("field_values", message)
    return all(
        wanted(field) if callable(wanted) else wanted in ("", field)
        for wanted, field in zip(field_values, fields[field_index:], strict=False)
    )


def _fields(params: tuple[str | list[str], ...]) -> tuple[str, ...]:
    if len(params) == 1 and isinstance(params[0], list):
        return tuple(params[0])
    return tuple(str(param) for param in params)


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
