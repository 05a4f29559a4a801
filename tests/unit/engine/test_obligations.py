"""What an allow obliges its enforcer to do."""

from __future__ import annotations

from typing import Any

import pytest

from gatebook.engine.obligations import Obliged, oblige
from gatebook.engine.verdict import Applicable, ColumnVerdict
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.policy.dataset import Ceiling, Column, Dataset, Sensitivity
from gatebook.values import (
    ColumnOutcome,
    Effect,
    Enforcer,
    Mask,
    MaskKind,
    MinimumGroup,
    ObligationKind,
    Reason,
    Rule,
)

TYPES = {"key_text": "text", "window_title": "text", "ts": "timestamptz", "subject_id": "text", "key_code": "int"}
SECURE = Call("eq", (Path(("row", "is_secure_field")), Literal(value=True)))
KEY_ID = "telemetry/model_training/0a1b2c3d"
ABLE = Enforcer(
    "svc-train",
    frozenset(MaskKind) - {MaskKind.UNSPECIFIED, MaskKind.CUSTOM},
    frozenset({ObligationKind.MASKS, ObligationKind.MINIMUM_GROUP}),
)


def _dataset(*, subject_keys: tuple[str, ...] = ("subject_id",), group_minimum: int = 0) -> Dataset:
    columns = {
        name: Column(name, f"mci.events.{name}", kind, ("tag:content.screen",) if name == "window_title" else ())
        for name, kind in TYPES.items()
    }
    return Dataset(
        "mci.events",
        columns,
        subject_keys,
        Sensitivity.SEALED,
        30,
        Ceiling((), 0),
        "notice",
        (),
        group_minimum,
    )


def _applicable(ptype: str, parameter: str, condition: Expression | None = None) -> Applicable:
    fields = ("role:researcher", "mci.events", "read", "model_training", "True", parameter)
    return Applicable(Rule(ptype, fields, "policy.csv", 1, ", ".join((ptype, *fields))), condition)


def _mask(parameter: str, condition: Expression | None = None) -> Applicable:
    return _applicable("p2", parameter, condition)


def _verdict(
    column: str, *masks: Applicable, k: tuple[str, ...] = (), reason: Reason = Reason.ALLOWED
) -> ColumnVerdict:
    effect = Effect.ALLOW if reason is Reason.ALLOWED else Effect.DENY
    groups = tuple(_applicable("p3", text) for text in k)
    return ColumnVerdict(f"mci.events.{column}", effect, reason, (), tuple(masks), groups)


def _oblige(*verdicts: ColumnVerdict, enforcer: Enforcer = ABLE, **arguments: Any) -> Obliged:  # noqa: ANN401 - keywords
    dataset = arguments.pop("dataset", _dataset())
    return oblige(dataset, verdicts, enforcer, **{"key_id": KEY_ID, **arguments})


def _reasons(obliged: Obliged) -> dict[str, Reason]:
    return {outcome.column: outcome.reason for outcome in obliged.columns}


def test_at_05_masks_of_the_researcher() -> None:
    """AT-05: farah gets each column of the keystroke events under the mask that its rule names."""
    obliged = _oblige(
        _verdict("key_text", _mask("redact"), _mask("nullify", SECURE)),
        _verdict("window_title", _mask("redact")),
        _verdict("ts", _mask("truncate:hour")),
        _verdict("subject_id", _mask("hash")),
    )

    def allowed(column: str, *masks: Mask) -> ColumnOutcome:
        return ColumnOutcome(column, Effect.ALLOW, Reason.ALLOWED, masks)

    redact = Mask(MaskKind.REDACT)
    assert (
        allowed("key_text", Mask(MaskKind.NULLIFY, condition=SECURE), redact),
        allowed("window_title", redact),
        allowed("ts", Mask(MaskKind.TRUNCATE, {"unit": "hour"})),
        allowed("subject_id", Mask(MaskKind.HASH, key_id=KEY_ID)),
    ) == obliged.columns


def test_masks_must_be_applied() -> None:
    """An allow with a mask obliges to masks, and one in clear to nothing."""
    masked, clear = _oblige(_verdict("key_text", _mask("redact"))), _oblige(_verdict("key_text", _mask("none")))

    assert ((ObligationKind.MASKS,), ()) == (masked.must_apply, clear.must_apply)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (["redact", "nullify"], ["nullify"]),
        (["none", "redact"], ["redact"]),
        (["truncate:hour", "truncate:day"], ["truncate:day"]),
        (["partial:last:4", "partial:last:2"], ["partial"]),
        (["redact", "redact"], ["redact"]),
        (["custom:geohash", "nullify"], ["nullify"]),
        (["none"], ["none"]),
    ],
)
def test_strictest_unconditional_mask_stands_alone(masks: list[str], expected: list[str]) -> None:
    """Of masks that always apply only the strictest is left."""
    column = "ts" if masks[0].startswith("truncate") else "key_text"
    obliged = _oblige(_verdict(column, *(_mask(mask) for mask in masks)))

    kinds = [mask.kind.name.lower() for mask in obliged.columns[0].masks]
    assert [text.split(":")[0] for text in expected] == kinds


@pytest.mark.parametrize(
    ("column", "masks"),
    [
        ("key_text", ["constant:a", "constant:b"]),
        ("key_text", ["partial:first:2", "partial:last:4"]),
        ("key_text", ["regex:a:b", "regex:a:c"]),
        ("key_text", ["custom:geohash", "custom:k_anonymous"]),
        ("key_text", ["custom:geohash", "redact"]),
        ("ts", ["redact"]),
        ("ts", ["hash"]),
        ("key_code", ["band:1"]),
        ("key_code", ["band:0.5"]),
        ("key_code", ["constant:x"]),
        ("key_text", ["band:10"]),
        ("key_text", ["nullfy"]),
        ("key_text", [""]),
        ("key_text", ["nullify", "no such mask"]),
    ],
)
def test_mask_that_cannot_be_applied_denies(column: str, masks: list[str]) -> None:
    """Masks that contradict each other, do not fit the type or do not exist deny; they never clear."""
    every = Enforcer("every", frozenset(MaskKind), frozenset(ObligationKind))
    obliged = _oblige(_verdict(column, *(_mask(mask) for mask in masks)), enforcer=every)

    assert Reason.MASK_NOT_APPLICABLE == obliged.failed


def test_masks_of_different_rows_that_contradict_deny() -> None:
    """Two constants under two conditions deny: nothing says that no row meets both."""
    other = Call("eq", (Path(("row", "app")), Literal("mail")))
    obliged = _oblige(_verdict("key_text", _mask("constant:a", SECURE), _mask("constant:b", other)))

    assert Reason.MASK_NOT_APPLICABLE == obliged.failed


def test_contradiction_under_a_stricter_mask_is_none() -> None:
    """Masks that a stricter one always covers are never reached, so they contradict nobody."""
    obliged = _oblige(_verdict("key_text", _mask("constant:a"), _mask("constant:b"), _mask("nullify")))

    assert (Mask(MaskKind.NULLIFY),) == obliged.columns[0].masks


def test_constant_and_default_name_the_type() -> None:
    """What does not depend on the value needs the column's type, which an enforcer may not know."""
    default = _oblige(_verdict("key_code", _mask("default"))).columns[0].masks
    constant = _oblige(_verdict("key_code", _mask("constant:7"))).columns[0].masks

    expected = (Mask(MaskKind.DEFAULT, {"type": "int"}), Mask(MaskKind.CONSTANT, {"value": "7", "type": "int"}))
    assert expected == default + constant


def test_hash_without_key_denies() -> None:
    """Where no key is provisioned nothing is hashed."""
    assert Reason.MASK_NOT_APPLICABLE == _oblige(_verdict("subject_id", _mask("hash")), key_id="").failed


@pytest.mark.parametrize("tag", ["tag:content.screen", "tag:content"])
@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ([], Reason.MASK_REQUIRED),
        ([_mask("redact", SECURE)], Reason.MASK_REQUIRED),
        ([_mask("none", SECURE)], Reason.MASK_REQUIRED),
        ([_mask("redact")], None),
        ([_mask("none")], None),
        ([_mask("redact", SECURE), _mask("none")], None),
    ],
)
def test_tag_that_demands_a_mask(tag: str, masks: list[Applicable], expected: Reason | None) -> None:
    """A tag, or a parent of it, demands a mask that always applies; clear text needs an explicit none."""
    obliged = _oblige(_verdict("window_title", *masks), mask_tags=frozenset({tag}))

    assert expected == obliged.failed


@pytest.mark.parametrize("tag", ["tag:content.scr", "tag:screen", "tag:content.screen.ocr", "tag:"])
def test_tag_of_another_kind_demands_nothing(tag: str) -> None:
    """A tag that merely begins like the column's, or lies below it, demands nothing of it."""
    assert _oblige(_verdict("window_title"), mask_tags=frozenset({tag})).failed is None


def test_conditional_none_clears_nothing() -> None:
    """A none that depends on the row is left out: where its condition is unknown it would clear."""
    obliged = _oblige(_verdict("key_text", _mask("none", SECURE), _mask("redact")))

    assert (Mask(MaskKind.REDACT),) == obliged.columns[0].masks


def test_none_whose_condition_is_unknown_clears_nothing() -> None:
    """A none is a permission: unlike a mask it does not apply where its condition is unknown."""
    obliged = _oblige(
        _verdict("window_title", _mask("none", Literal(value=None))), mask_tags=frozenset({"tag:content"})
    )

    assert Reason.MASK_REQUIRED == obliged.failed


def test_mask_whose_condition_is_unknown_always_applies() -> None:
    """A mask whose condition is unknown for every row applies to every row."""
    obliged = _oblige(
        _verdict("window_title", _mask("redact", Literal(value=None))), mask_tags=frozenset({"tag:content"})
    )

    assert (Mask(MaskKind.REDACT),) == obliged.columns[0].masks


def test_mask_whose_condition_is_false_stays_conditional() -> None:
    """A mask that never applies neither masks nor counts as the mask that a tag demands."""
    obliged = _oblige(
        _verdict("window_title", _mask("redact", Literal(value=False))), mask_tags=frozenset({"tag:content"})
    )

    assert Reason.MASK_REQUIRED == obliged.failed


def test_conditions_that_compare_alike_are_kept_apart() -> None:
    """A condition on True is not one on 1, though Python takes the two for equal."""
    conditions = [Call("eq", (Path(("row", "flag")), Literal(value))) for value in (True, 1, 1.0)]
    told = [_oblige(_verdict("key_text", _mask("redact", each))).columns[0].masks[0].condition for each in conditions]

    assert repr(conditions) == repr(told)


def test_too_many_masks_deny() -> None:
    """A column that meets more masks than the limit is denied."""
    conditions = [Call("eq", (Path(("row", "app")), Literal(f"app {n}"))) for n in range(33)]
    obliged = _oblige(_verdict("key_text", *(_mask("redact", condition) for condition in conditions)))

    assert Reason.MASK_NOT_APPLICABLE == obliged.failed


def test_largest_minimum_group_of_all_columns() -> None:
    """The minimum group is the largest of every returned column, over the dataset's subject keys."""
    obliged = _oblige(_verdict("ts", k=("5",)), _verdict("key_code", k=("3", "11")), _verdict("key_text"))

    assert (MinimumGroup(11, ("subject_id",)), (ObligationKind.MINIMUM_GROUP,)) == (
        obliged.minimum_group,
        obliged.must_apply,
    )


def test_group_of_a_withheld_column_does_not_count() -> None:
    """A column that is not returned demands no group."""
    withheld = _verdict("key_code", k=("11",), reason=Reason.DENIED_BY_RULE)
    obliged = _oblige(_verdict("ts", k=("5",)), withheld, allow_partial=True)

    assert MinimumGroup(5, ("subject_id",)) == obliged.minimum_group


@pytest.mark.parametrize("k", ["0", "-1", "five", ""])
def test_group_that_is_no_number_denies(k: str) -> None:
    """A minimum group that cannot be read denies."""
    assert Reason.EVALUATION_ERROR == _oblige(_verdict("ts", k=(k,))).failed


@pytest.mark.parametrize(
    ("group_minimum", "k", "expected"),
    [
        (10, "10", None),
        (10, "5", None),
        (10, "11", Reason.OBLIGATION_NOT_SUPPORTED),
        (0, "5", Reason.OBLIGATION_NOT_SUPPORTED),
    ],
)
def test_group_of_a_dataset_without_people(group_minimum: int, k: str, expected: Reason | None) -> None:
    """A dataset of aggregates fulfils a group that its rows already reach, and no larger one."""
    dataset = _dataset(subject_keys=(), group_minimum=group_minimum)
    obliged = _oblige(_verdict("ts", k=(k,)), dataset=dataset)

    assert (expected, None) == (obliged.failed, obliged.minimum_group)


@pytest.mark.parametrize(
    ("masks", "obligations", "verdict", "expected"),
    [
        ({MaskKind.REDACT}, {ObligationKind.MASKS}, _verdict("key_text", _mask("redact")), None),
        ({MaskKind.REDACT}, set(), _verdict("key_text", _mask("redact")), Reason.OBLIGATION_NOT_SUPPORTED),
        (set(), {ObligationKind.MASKS}, _verdict("key_text", _mask("redact")), Reason.OBLIGATION_NOT_SUPPORTED),
        (
            {MaskKind.REDACT},
            {ObligationKind.MASKS},
            _verdict("key_text", _mask("redact"), _mask("nullify", SECURE)),
            Reason.OBLIGATION_NOT_SUPPORTED,
        ),
        (
            {MaskKind.REDACT},
            {ObligationKind.MASKS},
            _verdict("key_text", _mask("redact"), _mask("band:10", SECURE)),
            None,
        ),
        (set(), set(), _verdict("key_text", _mask("none")), None),
        (set(), set(), _verdict("key_text"), None),
        (set(), {ObligationKind.MINIMUM_GROUP}, _verdict("ts", k=("5",)), None),
        (set(), {ObligationKind.MASKS}, _verdict("ts", k=("5",)), Reason.OBLIGATION_NOT_SUPPORTED),
        (
            {MaskKind.REDACT},
            {ObligationKind.MASKS},
            _verdict("key_text", _mask("custom:geohash")),
            Reason.OBLIGATION_NOT_SUPPORTED,
        ),
    ],
)
def test_what_the_enforcer_did_not_declare_denies(
    masks: set[MaskKind], obligations: set[ObligationKind], verdict: ColumnVerdict, expected: Reason | None
) -> None:
    """Every mask that can be reached, and every obligation, must be declared; `none` needs no declaration."""
    enforcer = Enforcer("svc", frozenset(masks), frozenset(obligations))

    assert expected == _oblige(verdict, enforcer=enforcer).failed


DENIED = _verdict("ts", reason=Reason.PURPOSE_NOT_GRANTED)
ALSO_DENIED = _verdict("key_code", reason=Reason.PURPOSE_NOT_GRANTED)
DENIED_OTHERWISE = _verdict("subject_id", reason=Reason.DENIED_BY_RULE)
CLEAR = _verdict("key_text")


@pytest.mark.parametrize(
    ("verdicts", "allow_partial", "expected"),
    [
        ([CLEAR], False, None),
        ([DENIED], False, Reason.PURPOSE_NOT_GRANTED),
        ([DENIED, ALSO_DENIED], False, Reason.PURPOSE_NOT_GRANTED),
        ([DENIED, DENIED_OTHERWISE], False, Reason.COLUMN_DENIED),
        ([CLEAR, DENIED], False, Reason.COLUMN_DENIED),
        ([CLEAR, DENIED], True, None),
        ([DENIED, ALSO_DENIED], True, Reason.PURPOSE_NOT_GRANTED),
        ([DENIED, DENIED_OTHERWISE], True, Reason.COLUMN_DENIED),
        ([], False, Reason.NO_MATCHING_RULE),
        ([], True, Reason.NO_MATCHING_RULE),
    ],
)
def test_reason_of_the_request(verdicts: list[ColumnVerdict], allow_partial: bool, expected: Reason | None) -> None:
    """Columns that are denied alike give their reason, and else `COLUMN_DENIED`; in part suffices only if asked."""
    assert expected == _oblige(*verdicts, allow_partial=allow_partial).failed


def test_partial_allow_names_the_withheld() -> None:
    """An allow in part has an outcome for every requested column, in order."""
    obliged = _oblige(DENIED, CLEAR, _verdict("window_title", _mask("band:10")), allow_partial=True)

    assert {
        "ts": Reason.PURPOSE_NOT_GRANTED,
        "key_text": Reason.ALLOWED,
        "window_title": Reason.MASK_NOT_APPLICABLE,
    } == _reasons(obliged)


def test_denied_column_carries_no_mask() -> None:
    """A withheld column tells nothing of the masks that it would have had."""
    denied = ColumnVerdict("mci.events.ts", Effect.DENY, Reason.DENIED_BY_RULE, (), (_mask("truncate:hour"),), ())
    obliged = _oblige(CLEAR, denied, allow_partial=True)

    assert () == obliged.columns[1].masks


def test_rules_that_shaped_the_allow() -> None:
    """The rules of masks that can be reached and of groups are named, each once."""
    redact, nullify = _mask("redact"), _mask("nullify", SECURE)
    hidden = _mask("band:10")
    obliged = _oblige(
        _verdict("key_text", redact, nullify, hidden, k=("5",)), _verdict("window_title", redact, k=("5",))
    )

    assert (nullify.rule, redact.rule, _applicable("p3", "5").rule) == obliged.rules


def test_column_that_the_dataset_does_not_have_is_denied() -> None:
    """An allow of a column that is not in the catalogue is denied here too."""
    assert Reason.UNKNOWN_COLUMN == _oblige(_verdict("password")).failed


def test_denial_tells_what_failed() -> None:
    """The message of a denial names the column, the cause, and how many more there are."""
    obliged = _oblige(CLEAR, _verdict("ts", _mask("redact")), DENIED_OTHERWISE)

    expected = "column `ts`: mask `redact` cannot be cast to type `timestamptz` (and 1 more)"
    assert expected == obliged.message
