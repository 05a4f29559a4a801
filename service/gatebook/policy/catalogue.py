"""`catalogue.yaml`: every dataset that may be asked for, and what is known of it.

Owns the catalogue of a governed set. Rules:

1. what is not here does not exist: a dataset or column without an entry is denied (AT-03);
2. a column lies in its dataset, a dataset in its namespaces (`mci.prompts` in `mci.*`), a column
   under its tags, and a tag `a.b` under the tag `a`: these are the g2 edges of the Casbin model;
3. every dataset has a notice, and is used for no purpose beyond it;
4. every dataset has a ceiling, and is shared with no role beyond it (AT-11).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from gatebook.policy import names
from gatebook.policy.casts import cast_row
from gatebook.policy.dataset import COLUMN_TYPES, Ceiling, Column, Dataset, Notice, Sensitivity, Tag
from gatebook.policy.dataset_file import Vocabulary, read_dataset, unknown_purpose
from gatebook.policy.purposes import Purposes
from gatebook.policy.yaml_nodes import Node, Scalar
from gatebook.policy.yaml_reader import DUPLICATE_NAME, UNKNOWN_NAME, WRONG_VALUE, Reader
from gatebook.values import Edge, Finding

__all__ = [
    "COLUMN_TYPES",
    "Catalogue",
    "Ceiling",
    "Column",
    "Dataset",
    "Notice",
    "Sensitivity",
    "Tag",
    "cast_row",
    "parse_catalogue",
    "role_parents",
]

DATASETS_MAX = 10_000
AUDIENCE_ROLES_MAX = 100
KEYS = ("datasets", "notices", "tags")


class Catalogue(msgspec.Struct, frozen=True):
    """The datasets of a policy set, with the notices and tags that they name.

    `mask_tags` are the nodes of the tags that demand a mask.
    """

    datasets: Mapping[str, Dataset]
    notices: Mapping[str, Notice]
    tags: Mapping[str, Tag]
    mask_tags: frozenset[str] = frozenset()
    file: str = ""

    def notice_of(self, dataset: Dataset) -> Notice:
        """Returns the notice that governs the dataset."""
        return self.notices[dataset.notice]

    def audience_within_ceiling(self, dataset: Dataset, audience: object) -> bool:
        """Tells whether every role of an audience is one of the dataset's ceiling (AT-11).

        Whom something is shared with reads it, so the ceiling is that of `read`. A role that inherits one of the
        ceiling is not within: a link between roles in the rules gives nobody a role that a ceiling asks for. No
        audience, or one that is no list of roles, is not within: what is not said may be anybody.
        """
        if not isinstance(audience, list | tuple) or not 0 < len(audience) <= AUDIENCE_ROLES_MAX:
            return False
        allowed = frozenset(dataset.ceiling.of("read").roles)
        return all(isinstance(role, str) and str.__str__(role) in allowed for role in audience)

    def edges(self) -> Iterator[Edge]:
        """Yields the g2 edges, each once."""
        spaces: dict[str, int] = {}
        for dataset in self.datasets.values():
            for column in dataset.columns.values():
                yield self._edge(column.node, dataset.id, column.line)
                for tag in column.tags:
                    yield self._edge(column.node, tag, column.line)
            space = names.namespace_of(dataset.id)
            yield self._edge(dataset.id, space, dataset.line)
            while space not in spaces:
                spaces[space] = dataset.line
                outer = names.namespace_of(space)
                if not outer:
                    break
                yield self._edge(space, outer, dataset.line)
                space = outer
        yield from self._tag_edges()

    def nodes(self) -> frozenset[str]:
        """Returns every node that the object of a rule can name: columns, datasets, namespaces and tags."""
        edges = frozenset(node for edge in self.edges() for node in (edge.child, edge.parent))
        return edges | frozenset(names.tag_node(tag) for tag in self.tags)

    def _tag_edges(self) -> Iterator[Edge]:
        seen: set[str] = set()
        for tag in self.tags.values():
            name = tag.name
            while (parent := names.parent_of(name)) and name not in seen:
                seen.add(name)
                yield self._edge(names.tag_node(name), names.tag_node(parent), tag.line)
                name = parent

    def _edge(self, child: str, parent: str, line: int) -> Edge:
        return Edge("g2", child, parent, file=self.file, line=line)


def role_parents(edges: Iterable[Edge]) -> dict[str, frozenset[str]]:
    """Returns the roles that each role inherits directly; subjects are left out."""
    parents: dict[str, set[str]] = {}
    for edge in edges:
        if edge.gtype == "g" and edge.child.startswith(names.ROLE_PREFIX):
            parents.setdefault(edge.child, set()).add(edge.parent)
    return {role: frozenset(found) for role, found in parents.items()}


def parse_catalogue(
    text: str,
    file: str,
    *,
    purposes: Purposes | None = None,
    actions: Collection[str] | None = None,
) -> tuple[Catalogue | None, list[Finding]]:
    """Reads `catalogue.yaml`.

    Args:
        text: The content of the file.
        file: Its path within the policy set.
        purposes: The purpose tree; given it, notices may name only what it knows.
        actions: The vocabulary of actions; given it, ceilings may name only what it knows.

    Returns:
        The catalogue, or None when there is a finding, and all findings by line and column.
    """
    reader = Reader(file)
    root = reader.root(text)
    found = None if root is None else reader.fields(root, file, KEYS, ("datasets", "notices"))
    if found is None:
        return None, reader.sorted_findings()
    tags = _tags(reader, found.get("tags"))
    notices = _notices(reader, found.get("notices"), purposes)
    datasets = _datasets(reader, found.get("datasets"), Vocabulary(tags, notices, purposes, actions))
    mask_tags = frozenset(names.tag_node(tag.name) for tag in tags.values() if tag.requires_mask)
    catalogue = Catalogue(datasets, notices, tags, mask_tags, file)
    return None if reader.failed else catalogue, reader.sorted_findings()


def _tags(reader: Reader, node: Node | None) -> Mapping[str, Tag]:
    tags: dict[str, Tag] = {}
    for key, value in () if node is None else reader.entries(node, "tags"):
        name = reader.name(key, "tags", names.TAG, "content.prompt")
        fields: Mapping[str, Node] | None = {}
        if not (isinstance(value, Scalar) and value.value is None):
            fields = reader.fields(value, f"tags.{key.text}", ("requires_mask", "description"))
        if name is None or fields is None:
            continue
        requires = reader.flag(fields["requires_mask"], f"{name}.requires_mask") if "requires_mask" in fields else False
        description = reader.text(fields["description"], f"{name}.description") if "description" in fields else ""
        tags[name] = Tag(name, bool(requires), description or "", key.line)
    return tags


def _notices(reader: Reader, node: Node | None, purposes: Purposes | None) -> Mapping[str, Notice]:
    notices: dict[str, Notice] = {}
    for key, value in () if node is None else reader.entries(node, "notices"):
        name = reader.name(key, "notices", names.WORD, "mci-2026-05")
        required = ("purposes", "effective_time")
        fields = reader.fields(value, f"notices.{key.text}", (*required, "end_time", "description"), required)
        if name is None or fields is None:
            continue
        notice = _notice(reader, key, fields, purposes)
        if notice is not None:
            notices[name] = notice
    return notices


def _notice(reader: Reader, key: Scalar, fields: Mapping[str, Node], purposes: Purposes | None) -> Notice | None:
    told = []
    where = f"{key.text}.purposes"
    named = reader.names(fields["purposes"], where, names.PURPOSE, "model_training") if "purposes" in fields else []
    for purpose, item in named:
        told.append(purpose)
        if purposes is not None and purpose not in purposes:
            reader.refuse(item, UNKNOWN_NAME, unknown_purpose(purpose, where, purposes))
    begins, ends = (
        reader.moment(fields[name], f"{key.text}.{name}") if name in fields else None
        for name in ("effective_time", "end_time")
    )
    if begins is not None and ends is not None and ends <= begins:
        reader.refuse(fields["end_time"], WRONG_VALUE, f"`{key.text}.end_time` is not after `effective_time`")
    description = reader.text(fields["description"], f"{key.text}.description") if "description" in fields else ""
    if begins is None:
        return None
    return Notice(key.text, tuple(told), begins, ends, description or "", key.line)


def _datasets(reader: Reader, node: Node | None, vocabulary: Vocabulary) -> Mapping[str, Dataset]:
    datasets: dict[str, Dataset] = {}
    keys: dict[str, Scalar] = {}
    for key, value in () if node is None else reader.entries(node, "datasets"):
        dataset = read_dataset(reader, key, value, vocabulary)
        if dataset is not None:
            datasets[dataset.id], keys[dataset.id] = dataset, key
        if len(datasets) > DATASETS_MAX:
            reader.refuse(key, "TOO_MANY", f"a catalogue has at most {DATASETS_MAX:,} datasets; split the policy set")
            break
    columns = {column.node: dataset.id for dataset in datasets.values() for column in dataset.columns.values()}
    for id_ in datasets.keys() & columns.keys():
        message = f"the dataset `{id_}` has the name of a column of `{columns[id_]}`; rename one of them"
        reader.refuse(keys[id_], DUPLICATE_NAME, message)
    return datasets
