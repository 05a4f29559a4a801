"""The events of the log: the operator's guide lists each one, with its level and keys, and what runs logs no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.serving import POLICIES, ROOT, gatebook, serving

GUIDE = ROOT / "docs" / "operating.md"
SERVICE = ROOT / "service" / "gatebook"
OFTEN = {"event", "level", "timestamp", "worker"}
LEVELS = {"info": "info", "warning": "warning", "error": "error", "exception": "error", "critical": "critical"}
SILENT = {"cli", "demo"}
"""They print for people and do not log."""
PERSONAL = ("kai", "nobody-known", "ai_usage.team_daily", "my-own-request-id")


@dataclass(frozen=True)
class Event:
    """What one event of the log looks like."""

    level: str
    keys: frozenset[str]


def documented() -> dict[str, Event]:
    """Returns the events in the table of the guide."""
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \|([^|]*)\| ", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    levels = set(LEVELS.values())
    return {
        name: Event(level, frozenset(keys.replace(",", " ").split())) for name, level, keys in rows if level in levels
    }


def written() -> Iterator[tuple[str, str, set[str]]]:
    """Yields what the code logs: event, level and keys."""
    for path in sorted(SERVICE.rglob("*.py")):
        if path.relative_to(SERVICE).parts[0] in SILENT:
            continue
        module = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield from logged(node, node.func, module)


def logged(call: ast.Call, function: ast.Attribute, module: ast.Module) -> Iterator[tuple[str, str, set[str]]]:
    """Yields what a call logs, if it does."""
    keys = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
    if function.attr == "tell":
        yield "call", "info", keys
    elif function.attr in LEVELS and call.args and re.search(r"\b_?log\b|get_logger", ast.unparse(function.value)):
        more = {"exception"} if function.attr == "exception" else set()
        for event in names(call.args[0], call, module):
            yield event, LEVELS[function.attr], keys | more


def names(event: ast.expr, call: ast.Call, module: ast.Module) -> set[str]:
    """Returns the names that an event can have: the constant, or those with which the function around is called."""
    if isinstance(event, ast.Constant):
        return {str(event.value)}
    if isinstance(event, ast.IfExp):
        return names(event.body, call, module) | names(event.orelse, call, module)
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and call in ast.walk(node)]
    callers = [
        node
        for node in ast.walk(module)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {f"self.{function.name}" for function in functions}
        and isinstance(node.args[0], ast.Constant)
    ]
    found = {str(node.args[0].value) for node in callers if isinstance(node.args[0], ast.Constant)}
    assert found, f"the name of an event is no constant: {ast.unparse(call)}"
    return found


def test_the_guide_lists_what_the_code_logs() -> None:
    """Each event in the code is in the guide with its level and keys, and each in the guide is in the code."""
    table = documented()
    found: dict[str, Event] = {}
    for name, level, keys in written():
        before = found.get(name, Event(level, frozenset()))
        found[name] = Event(level, before.keys | keys)
    found["call"] = Event("info", found["call"].keys | {"reason", "cause"})  # put in by the rim, where a call fails
    found["log lines dropped"] = Event("warning", frozenset({"count"}))  # rendered past the queue that is full
    assert table == found


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """Gives the log of a server that was started twice, asked, refused and stopped."""
    data = tmp_path_factory.mktemp("events") / "data"
    policies = [POLICIES / "telemetry"]
    with serving(data, policies, "--metrics", "127.0.0.1:0") as server:
        to = ("--target", server.target)
        check = ("check", "kai", "read", "ai_usage.team_daily", *to)
        gatebook(*check)
        gatebook("check", "nobody-known", "read", "ai_usage.team_daily", "--explain", *to)
        assert 2 == gatebook(*check, "--policy-set", "absent").returncode
        gatebook("audit", "list", *to)
        gatebook("policy", "list", *to)
        server.kill()
    with serving(data, policies) as again:
        assert 0 == again.stop()
    return [*server.lines, *again.lines]


def test_events_that_occur_are_as_documented(lines: list[dict[str, object]]) -> None:
    """Each line has a name, a level and keys that the guide knows."""
    table = documented()
    wrong = []
    for line in lines:
        event = table.get(str(line["event"]))
        if event is None or line["level"] != event.level or not line.keys() <= event.keys | OFTEN:
            wrong.append(line)
    assert [] == wrong
    assert {"metrics", "serving", "call", "draining", "stopped"} <= {line["event"] for line in lines}


def test_lines_name_nobody(lines: list[dict[str, object]]) -> None:
    """No line holds a subject, a resource, or an id that a caller chose."""
    text = "\n".join(map(str, lines))
    assert [] == [word for word in PERSONAL if re.search(rf"\b{re.escape(word)}\b", text)]


def test_modules_that_log_use_structlog() -> None:
    """Nobody prints or uses `logging`, but what forwards the lines of libraries and what silences one."""
    allowed = {Path("log.py"), Path("policy/oracle.py")}
    found = [
        path.relative_to(SERVICE)
        for path in sorted(SERVICE.rglob("*.py"))
        if re.search(r"^(import|from) logging\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert set(found) <= allowed
