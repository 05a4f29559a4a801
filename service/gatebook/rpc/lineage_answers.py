"""What tables inherit, as messages.

Owns the reading of one policy set's tables: what it declares, what `inheritance` makes of it, and by which sources.
"""

from __future__ import annotations

from collections.abc import Iterator

from gatebook.errors import InvalidRequestError
from gatebook.governance.descent import Descent, Place
from gatebook.governance.lineage import Lineage
from gatebook.policy import names
from gatebook.policy.dataset import Column, Dataset
from gatebook.policy.policy_set import PolicySet
from gatebook.policy.suggest import did_you_mean
from gatebook.revisions.deriving import Recorded
from gatebook.v1 import policy_service_pb2 as pb


def recorded(told: Recorded) -> pb.RecordLineageResponse:
    """Returns what came of a run event."""
    outputs = [
        pb.LineageOutput(
            namespace=one.derivation.output.namespace,
            name=one.derivation.output.name,
            changed=one.changed,
            index=one.index,
        )
        for one in told.outputs
    ]
    return pb.RecordLineageResponse(event_type=told.event_type, outputs=outputs)


def inherited(declared: PolicySet, whole: PolicySet, lineage: Lineage, dataset: str) -> pb.GetLineageResponse:
    """Returns what the tables of a set inherit.

    Args:
        declared: The set as its files declare it.
        whole: The same with what its tables inherit.
        lineage: What is known of tables.
        dataset: The only one that is asked for; empty: all that were made of others.

    Raises:
        InvalidRequestError: there is no such dataset.
    """
    known = {} if whole.catalogue is None else whole.catalogue.datasets
    if dataset and dataset not in known:
        message = f"`{dataset}` is no dataset of `{whole.name}`, declared or derived{did_you_mean(dataset, known)}"
        raise InvalidRequestError("dataset", message)
    descent = Descent(declared, lineage)
    chosen = [known[dataset]] if dataset else [it for key, it in sorted(known.items()) if key in descent.derivations]
    return pb.GetLineageResponse(datasets=[_dataset(it, descent) for it in chosen])


def _dataset(dataset: Dataset, descent: Descent) -> pb.InheritedDataset:
    message = pb.InheritedDataset(
        dataset=dataset.id,
        declared=descent.declared(dataset.id) is not None,
        sealed_by=dataset.sealed_by,
        columns=[_column(column, (dataset.id, column.name), descent) for column in dataset.columns.values()],
        ceiling_roles=dataset.ceiling.roles,
        ceiling_people_max=dataset.ceiling.people_max,
        purposes=dataset.purposes,
        retention_days=dataset.retention_days,
        sensitivity=dataset.sensitivity.name.lower(),
        notice=dataset.notice,
    )
    for parent, by in sorted(descent.parents(dataset.id).items()):
        message.origins.add(dataset=descent.called(parent), job=str(by.job), run_id=by.run_id, index=by.index)
    return message


def _column(column: Column, place: Place, descent: Descent) -> pb.InheritedColumn:
    own = [tag for tag in column.tags if not names.is_inherited(tag)]
    return pb.InheritedColumn(
        column=column.name,
        type=column.type,
        tags=[tag.removeprefix(names.TAG_PREFIX) for tag in own],
        inherited=_tags(own, place, descent),
        sources=[
            pb.ColumnSource(
                dataset=descent.called(flow.source[0]),
                column="" if flow.source[1] == "*" else flow.source[1],
                masked=flow.masked,
                indirect=not flow.direct,
            )
            for flow in descent.sources(place)
        ],
    )


def _tags(own: list[str], place: Place, descent: Descent) -> Iterator[pb.InheritedTag]:
    found = descent.tags(place)
    for tag, clear in sorted(found.items()):
        if tag not in own:
            yield pb.InheritedTag(tag=tag.removeprefix(names.TAG_PREFIX), masked=not clear)
    for dropped, tag in sorted(descent.dropped):
        if dropped == place and tag not in found:
            yield pb.InheritedTag(tag=tag.removeprefix(names.TAG_PREFIX), masked=True, dropped=True)
