"""The options by which commands put a question, and what comes of them: one access request."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from gatebook.v1 import types_pb2

OPTIONS = (
    click.argument("subject"),
    click.argument("action"),
    click.argument("resource"),
    click.option("--columns", default="", metavar="A,B", help="The columns asked for; none means every column."),
    click.option("--purpose", default="", help="Why, such as `model_training.evaluation`."),
    click.option("--context", "context", multiple=True, metavar="KEY=VALUE", help="A circumstance; may be repeated."),
    click.option("--property", "properties", multiple=True, metavar="KEY=VALUE", help="An attribute of the subject."),
    click.option("--type", "subject_type", default="user", show_default=True, help="The type of the subject."),
    click.option("--enforcer", default="", help="Ask as this enforcer, able to apply every obligation."),
    click.option("--partial", is_flag=True, help="Allow the columns that are allowed, and name the others."),
    click.option("--policy-set", default="", help="The policy set; not needed when one is served."),
    click.option("--at-least", default=0, metavar="NUMBER", help="Decide only with this revision or a later one."),
)
NAMES = (
    *("subject", "action", "resource", "columns", "purpose", "context", "properties", "subject_type", "enforcer"),
    *("partial", "policy_set", "at_least"),
)


class Asked(NamedTuple):
    """A question as it was put on the command line."""

    access: types_pb2.AccessRequest
    partial: bool
    policy_set: str
    at_least: int


def question_options(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the arguments and options of a question to a command, which gets them as one value, `asked`."""

    @functools.wraps(function)
    def command(**options: Any) -> None:  # noqa: ANN401  # click knows the types
        function(asked=question(**{name: options.pop(name) for name in NAMES}), **options)

    for option in reversed(OPTIONS):
        command = option(command)
    return command


def question(  # noqa: PLR0913  # one argument per option
    *,
    subject: str,
    action: str,
    resource: str,
    columns: str,
    purpose: str,
    context: tuple[str, ...],
    properties: tuple[str, ...],
    subject_type: str,
    enforcer: str,
    partial: bool,
    policy_set: str,
    at_least: int,
) -> Asked:
    """Returns the question that the options describe."""
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(type=subject_type, id=subject, properties_json=pairs_json(properties)),
        action=types_pb2.Action(name=action),
        resource=types_pb2.Resource(id=resource, columns=[c.strip() for c in columns.split(",") if c.strip()]),
        purpose=purpose,
        context_json=pairs_json(context),
    )
    if enforcer:
        access.enforcer.id = enforcer
        access.enforcer.supported_masks.extend(k for k in types_pb2.MaskKind.values() if k)
        access.enforcer.supported_obligations.extend(k for k in types_pb2.ObligationKind.values() if k)
    return Asked(access, partial, policy_set, at_least)


def pairs_json(pairs: tuple[str, ...]) -> bytes:
    """Returns `key=value` pairs as a JSON object; a value that is JSON counts as JSON, any other as text.

    Raises:
        click.UsageError: a pair has no `=`.
    """
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"`{pair}` is not KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return json.dumps(found).encode() if found else b""
