"""The dashboard and the alerts that are shipped: they read what a server tells, and what the guide explains."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from ruamel.yaml import YAML
from tests.certificates import authority, tls_options
from tests.promql import reads
from tests.scrapes import Scrape, scrape
from tests.serving import POLICIES, ROOT, RunningServer, gatebook, serving

from gatebook.envoy import external_auth_pb2
from gatebook.rpc.status import CODES
from gatebook.tlog.cosignature import WitnessSigningKey
from gatebook.v1 import access_service_pb2, audit_service_pb2, policy_service_pb2
from gatebook.values import Effect, Reason

DASHBOARD = ROOT / "docs" / "deploy" / "grafana" / "gatebook.json"
ALERTS = ROOT / "docs" / "deploy" / "prometheus" / "alerts.yaml"
GUIDE = ROOT / "docs" / "operating.md"
TARGET_LABELS = {"job", "instance"}
"""Prometheus itself puts these on whatever it scrapes."""
SEVERITIES = {"critical", "warning", "info"}
VOCABULARY = {
    "code": {code.name for code in grpc.StatusCode},
    "reason": {*CODES, *(reason.name for reason in Reason)},
    "effect": {effect.name for effect in Effect},
    "operation": {
        method.name
        for file in (access_service_pb2, audit_service_pb2, external_auth_pb2, policy_service_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    },
    "job": {"gatebook"},
}
"""The values that a label can have, where they are few."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    """Gives what a server tells that allowed, denied and refused, with a policy set and a directory."""
    folder = tmp_path_factory.mktemp("dashboards")
    tls = tls_options(folder, authority())
    nobody = f"http://127.0.0.1:1={WitnessSigningKey.generate('witness.test/w1').public}"
    watched = ("--metrics", "127.0.0.1:0", "--witness", nobody)
    with serving(folder / "tls", [POLICIES / "basic"], *tls, *watched) as server:
        encrypted = scrape(address_of(server))
    with serving(folder / "data", [POLICIES / "telemetry"], "--metrics", "127.0.0.1:0") as server:
        to = ("--target", server.target)
        kai = ("check", "kai", "read", "ai_usage.team_daily", *to)
        assert 1 == gatebook(*kai).returncode
        assert 2 == gatebook(*kai, "--policy-set", "absent").returncode
        plain = scrape_when_known(address_of(server), "gatebook_people_without_key")
    return Scrape(plain.text, encrypted.text)


def scrape_when_known(address: str, late: str) -> Scrape:
    """Asks for the metrics until one is among them that a server tells only when it has looked."""
    deadline = time.monotonic() + 30
    while not (told := scrape(address)).series(late):
        assert time.monotonic() < deadline, f"{late} is not told"
        time.sleep(0.05)
    return told


def address_of(server: RunningServer) -> str:
    """Returns where a server tells operators."""
    return str(next(line for line in server.lines if line["event"] == "metrics")["listen"])


def dashboard() -> dict[str, Any]:
    """Returns the dashboard."""
    read: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def alerts() -> list[dict[str, Any]]:
    """Returns the rules of all alerts."""
    groups = YAML(typ="safe").load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Yields every expression that is shipped, with the place where it stands."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for annotation in dashboard()["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]
    for rule in alerts():
        yield f"alert {rule['alert']}", rule["expr"]


def test_expressions_read_what_a_server_tells(told: Scrape) -> None:
    """Each series, label and value that an expression names is one that a running server can tell."""
    labels = {
        name: {label for labels in told.series(name) for label in labels} for name in {s.name for s in told.samples}
    }
    wrong = []
    for place, expression in expressions():
        read = reads(expression)
        assert read.series, f"{place} reads nothing: {expression}"
        known = TARGET_LABELS.union(*(labels.get(name, set()) for name in read.series))
        wrong += [f"{place}: grouped by {label}" for label in read.grouped - known]
        for name, matchers in read.series.items():
            if name not in labels and name != "up":
                wrong.append(f"{place}: no series {name}")
            for matcher in matchers:
                if matcher.label not in labels.get(name, set()) | TARGET_LABELS:
                    wrong.append(f"{place}: {name} has no label {matcher.label}")
                elif absent := set(matcher.values) - VOCABULARY.get(matcher.label, set(matcher.values)):
                    wrong.append(f"{place}: {matcher.label} is never {absent}")
    assert [] == wrong


def test_the_dashboard_can_be_imported() -> None:
    """The dashboard has what Grafana needs, asks for its data source, and no two of its panels overlap."""
    board = dashboard()
    assert {"gatebook", "Gatebook"} == {board["uid"], board["title"]}
    assert board["schemaVersion"] >= 36
    variables = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
    assert {"datasource": "datasource", "job": "query", "instance": "query"} == variables
    panels = board["panels"]
    assert len(panels) == len({panel["id"] for panel in panels})
    assert {"${datasource}"} == {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"}
    overlaps = [(a["title"], b["title"]) for a, b in itertools.combinations(panels, 2) if overlap(a, b)]
    assert [] == overlaps
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tells whether two panels cover each other."""
    a, b = one["gridPos"], other["gridPos"]
    across = a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"]
    down = a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
    return bool(across and down)


def test_the_guide_explains_each_alert() -> None:
    """Each alert has a severity and a summary, and the guide has a heading for each, and for no other."""
    rules = alerts()
    assert SEVERITIES >= {rule["labels"]["severity"] for rule in rules}
    assert all(rule["annotations"]["summary"] for rule in rules)
    headings = re.findall(r"^### (Gatebook\w+)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rule["alert"] for rule in rules) == sorted(headings)


def test_the_guide_names_each_metric(told: Scrape) -> None:
    """The table of metrics in the guide holds every metric of ours, and no other."""
    text = GUIDE.read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(gatebook_\w+)` ", text, re.MULTILINE))
    families = {re.sub(r"_(bucket|count|sum)$", "", s.name) for s in told.samples if s.name.startswith("gatebook_")}
    assert families == named


def test_files_are_where_the_guide_says() -> None:
    """The guide links to both files."""
    links = re.findall(r"\]\((deploy/[^)]+)\)", GUIDE.read_text(encoding="utf-8"))
    assert {DASHBOARD, ALERTS} <= {Path(GUIDE.parent / link) for link in links}
