"""The questions of Casbin's RBAC interfaces: who has which role and permission, with and without domains.

Owns what `get_roles_for_user` and its like answer, which is what pycasbin answers to them, but in the order of the
policy (Casbin has none for roles). Who is given no domain is asked about in the domain of the empty name, as in Casbin.
"""

from __future__ import annotations

from collections.abc import Iterator

from gatebook.enforcer.loaded import Loaded
from gatebook.enforcer.policies import Policies

SUBJECT, OBJECT, DOMAIN = "sub", "obj", "dom"
_ACTION_PLACE, _OBJECT_PLACE = 2, 1


class RoleQuestions(Policies):
    """Answers who has which roles and permissions."""

    _loaded: Loaded

    def enforce(self, *rvals: object) -> bool:
        """Tells whether a request is allowed; see `Enforcer`."""
        raise NotImplementedError

    def get_roles_for_user(self, name: str) -> list[str]:
        """Returns the roles that a user has directly by `g`."""
        return self.get_roles_for_user_in_domain(name, "")

    def get_roles_for_user_in_domain(self, name: str, domain: str) -> list[str]:
        """Returns the roles that a user has directly by `g` in a domain."""
        return list(self._loaded.parents("g", name, self._domains("g", domain)))

    def get_users_for_role(self, name: str) -> list[str]:
        """Returns who has a role directly by `g`."""
        return self.get_users_for_role_in_domain(name, "")

    def get_users_for_role_in_domain(self, name: str, domain: str) -> list[str]:
        """Returns who has a role directly by `g` in a domain."""
        return list(self._loaded.children("g", name, self._domains("g", domain)))

    def has_role_for_user(self, name: str, role: str) -> bool:
        """Tells whether a user has a role directly by `g`."""
        return role in self.get_roles_for_user(name)

    def get_all_roles_by_domain(self, domain: str) -> list[str]:
        """Returns each role that somebody has by `g` in a domain, once."""
        return list({names[-2]: None for names in self._loaded.links_of("g") if names[-1] == domain})

    def get_implicit_roles_for_user(self, name: str, domain: str = "") -> list[str]:
        """Returns the roles that a user has, directly or by other roles, by links of any type; nearest first."""
        return list(self._implicit_roles(name, domain))

    def get_permissions_for_user(self, user: str) -> list[list[str]]:
        """Returns the `p` rules whose first field is a user or role."""
        return self.get_filtered_policy(0, user)

    def has_permission_for_user(self, user: str, *permission: str) -> bool:
        """Tells whether there is a `p` rule of a user or role and these fields."""
        return self.has_policy(user, *permission)

    def get_permissions_for_user_in_domain(self, user: str, domain: str) -> list[list[str]]:
        """Returns the `p` rules of a user or role whose second field is a domain."""
        return self.get_named_permissions_for_user_in_domain("p", user, domain)

    def get_named_permissions_for_user_in_domain(self, ptype: str, user: str, domain: str) -> list[list[str]]:
        """Returns the rules of a type of a user or role whose second field is a domain, any for the empty text."""
        return self.get_filtered_named_policy(ptype, 0, user, domain)

    def get_implicit_permissions_for_user(
        self,
        user: str,
        domain: str = "",
        filter_policy_dom: bool = True,  # noqa: FBT001, FBT002  # as in Casbin
    ) -> list[list[str]]:
        """Returns the `p` rules of a user and of all roles that the user has, in a domain."""
        return self.get_named_implicit_permissions_for_user("p", user, domain, filter_policy_dom)

    def get_named_implicit_permissions_for_user(
        self,
        ptype: str,
        user: str,
        domain: str = "",
        filter_policy_dom: bool = True,  # noqa: FBT001, FBT002  # as in Casbin
    ) -> list[list[str]]:
        """Returns the rules of a type of a user and of all roles that the user has, in a domain."""
        wanted = domain if filter_policy_dom else ""
        return [
            fields
            for name in (user, *self._implicit_roles(user, domain))
            for fields in self.get_named_permissions_for_user_in_domain(ptype, name, wanted)
        ]

    def get_implicit_users_for_permission(self, *permission: str) -> list[str]:
        """Returns who may do something: every user that a rule or a `g` link names, but no role."""
        links = self._loaded.links_of("g")
        roles = {names[1] for names in links}
        users = dict.fromkeys((*(names[0] for names in links), *self.get_all_subjects()))
        return [user for user in users if user not in roles and self.enforce(user, *permission)]

    def get_implicit_users_for_resource(self, resource: str) -> list[list[str]]:
        """Returns the `p` rules about a resource, those of a role once for each who has it directly."""
        return self._users_for_resource(resource, "", set(self.get_all_roles()))

    def get_implicit_users_for_resource_by_domain(self, resource: str, domain: str) -> list[list[str]]:
        """Returns the same in a domain: those of a role of the domain once for each who has it there directly."""
        return self._users_for_resource(resource, domain, set(self.get_all_roles_by_domain(domain)))

    def get_allowed_object_conditions(self, user: str, action: str, prefix: str) -> list[str] | None:
        """Returns the objects of a user's rules for an action, without a prefix; None where one lacks it."""
        rules = self.get_implicit_permissions_for_user(user)
        objects = [fields[_OBJECT_PLACE] for fields in rules if fields[_ACTION_PLACE] == action]
        if not objects or not all(name.startswith(prefix) for name in objects):
            return None
        return [name.removeprefix(prefix) for name in objects]

    def _users_for_resource(self, resource: str, domain: str, roles: set[str]) -> list[list[str]]:
        subject, position, dom = (self.get_field_index("p", name) for name in (SUBJECT, OBJECT, DOMAIN))
        found: dict[tuple[str, ...], None] = {}
        for fields in self._loaded.fields_of("p"):
            if fields[position] != resource:
                continue
            if fields[subject] not in roles:
                found[fields] = None
            elif not domain or fields[dom] == domain:
                for user in self.get_users_for_role_in_domain(fields[subject], domain):
                    found[*fields[:subject], user, *fields[subject + 1 :]] = None
        return [list(fields) for fields in found]

    def _implicit_roles(self, name: str, domain: str) -> Iterator[str]:
        found: dict[str, None] = {}
        pending = [name]
        for one in pending:
            for gtype in self._loaded.policy_set.model.roles:
                for role in self._loaded.parents(gtype, one, self._domains(gtype, domain)):
                    if role not in found:
                        found[role] = None
                        pending.append(role)
        yield from found

    def _domains(self, gtype: str, domain: str) -> tuple[str, ...]:
        """Returns the domains of a link: none where links of the type have none."""
        definition = self._loaded.policy_set.model.roles.get(gtype)
        return () if definition is None or definition.arity <= 2 else (domain,)  # noqa: PLR2004  # a child and a parent
