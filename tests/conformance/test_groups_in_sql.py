"""The client's groups are those that DuckDB finds in SQL that was written apart (AT-09)."""

from __future__ import annotations

from typing import Any

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.v1 import types_pb2
from gatebook_client.groups import aggregate

GROUPS = """
WITH kept AS (SELECT unnest(?::VARCHAR[]) AS team, unnest(?::VARCHAR[]) AS person, unnest(?::BIGINT[]) AS tokens),
     sized AS (SELECT team, count(DISTINCT person) >= ? AS large FROM kept GROUP BY team)
SELECT CASE WHEN large THEN kept.team END, count(*), sum(tokens), count(DISTINCT person)
FROM kept JOIN sized ON kept.team IS NOT DISTINCT FROM sized.team
GROUP BY CASE WHEN large THEN kept.team END, NOT large
HAVING count(DISTINCT person) >= ?
"""

STORE = duckdb.connect()


def _decision(k: int) -> types_pb2.Decision:
    decision = types_pb2.Decision(
        effect=types_pb2.EFFECT_ALLOW,
        reason=types_pb2.REASON_CODE_ALLOWED,
        must_apply=[types_pb2.OBLIGATION_KIND_MINIMUM_GROUP],
        minimum_group=types_pb2.MinimumGroup(k=k, entity_columns=["person"]),
        row_filter=types_pb2.RowFilter(kind=types_pb2.ROW_FILTER_KIND_ALL_ROWS),
    )
    decision.expires_time.FromJsonString("9999-01-01T00:00:00Z")
    for name in ("team", "person", "tokens"):
        decision.columns.add(column=name, effect=types_pb2.EFFECT_ALLOW, reason=types_pb2.REASON_CODE_ALLOWED)
    return decision


rows = st.lists(
    st.fixed_dictionaries(
        {
            "team": st.sampled_from(["red", "blue", "green", None]),
            "person": st.sampled_from([*"abcdefgh", None]),
            "tokens": st.integers(0, 9),
        }
    ),
    max_size=40,
)


@settings(max_examples=50)
@given(rows, st.integers(1, 6))
def test_groups_and_remainder(rows: list[dict[str, Any]], k: int) -> None:
    """Exactly the groups of at least k people leave, and the rest as one remainder if it has k."""
    found = aggregate(
        _decision(k),
        rows,
        by=["team"],
        measures={"rows": ("count", "*"), "tokens": ("sum", "tokens"), "people": ("distinct", "person")},
    )
    arguments = [[row[name] for row in rows] for name in ("team", "person", "tokens")]
    expected = STORE.execute(GROUPS, [*arguments, k, k]).fetchall()

    by_text = sorted(expected, key=str)
    assert by_text == sorted((tuple(group.values()) for group in found), key=str)
    assert all(group["people"] >= k for group in found)
