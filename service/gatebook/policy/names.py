"""The forms that the names of a policy set have, so that no node can be taken for another.

Roles are `role:x`, tags `tag:x`, namespaces `x.*`, the root of the purposes `*`; datasets, columns
and purposes are dotted names; a subject's id is anything else (design section 4).
"""

from __future__ import annotations

import re

ROLE = re.compile(r"role:[A-Za-z0-9_][A-Za-z0-9_.-]*")
TAG = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z][A-Za-z0-9_-]*)*")
WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
DATASET = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)+")
COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PURPOSE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*")
NAMESPACE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*\.\*")
ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
SUBJECT = re.compile(r"[^\s,\"#`\x00-\x1f\x7f](?:[^,\"#`\x00-\x1f\x7f]*[^\s,\"#`\x00-\x1f\x7f])?")

ROLE_PREFIX = "role:"
TAG_PREFIX = "tag:"
INHERITED_PREFIX = "tag:~"
"""Begins the node of a tag that a column inherits by lineage: it denies and masks, and grants nothing."""
EVERYTHING = "*"

RESERVED_ATTRIBUTES = frozenset(("id", "type", "name"))
"""What `r.sub.id` and its like already mean (api.md, binding)."""


def tag_node(tag: str) -> str:
    """Returns the node of a tag."""
    return TAG_PREFIX + tag


def inherited_node(node: str) -> str:
    """Returns the node of a tag where it is inherited by lineage."""
    return INHERITED_PREFIX + node.removeprefix(TAG_PREFIX)


def is_inherited(node: str) -> bool:
    """Tells whether a node is that of an inherited tag."""
    return node.startswith(INHERITED_PREFIX)


def plain_tag(node: str) -> str:
    """Returns the node of a tag as `catalogue.yaml` declares it, of one that is inherited too."""
    return TAG_PREFIX + node.removeprefix(INHERITED_PREFIX) if is_inherited(node) else node


def parent_of(name: str) -> str:
    """Returns the dotted parent of a name, or "" for a root."""
    return name.rpartition(".")[0]


def namespace_of(dataset: str) -> str:
    """Returns the namespace node that a dataset, or another namespace node, lies in; "" beyond the outermost."""
    parent = parent_of(dataset.removesuffix(".*"))
    return f"{parent}.*" if parent else ""


def looks_like_a_node(subject: str) -> bool:
    """Tells whether a subject's id could be taken for a role, tag, namespace or the root."""
    lowered = subject.lower()
    return lowered.startswith((ROLE_PREFIX, TAG_PREFIX)) or subject.endswith(".*") or subject == EVERYTHING
