"""The gate at a publish: a revision whose audience exceeds a ceiling is refused, with somebody who would have got in.

Each counterexample is asked of a server whose ceilings are lifted and whose rules are those of the draft: there the
request is really allowed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import msgspec
import pytest
from google.rpc import error_details_pb2
from tests.scrapes import scrape
from tests.serving import RunningServer, gatebook, serving
from tests.telemetry_sets import DIRECTORY, telemetry_without_consent

from gatebook.cli.output import details_of
from gatebook.v1 import access_service_pb2, audit_service_pb2, entry_pb2, types_pb2
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

Files = Mapping[str, bytes]
MCI, ROLES, CATALOGUE = "policy/mci.csv", "policy/roles.csv", "catalogue.yaml"
PEOPLE, OUTSIDE, RESEARCHERS = 19, 16, 40
"""All 19 are employees; farah and ivan are within the ceiling of prompts, and omar is denied them."""
UNCOVERED = b"""p, role:employee, mci.prompts.tokens_in, read, *, True, allow
p, role:employee, tag:usage.token, read, *, True, deny
"""
COVERED = b"""p, role:employee, mci.prompts, read, *, True, allow
p, role:employee, mci.prompts, read, *, True, deny
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The telemetry set with purposes that need no consent, so that a counterexample can be asked."""
    return telemetry_without_consent(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def shipped(folder: Path) -> Files:
    """Its files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "directory"
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[RunningServer]:
    """A server of the set with its directory."""
    with serving(tmp_path_factory.mktemp("served") / "data", [folder], "--dev") as running:
        yield running


@pytest.fixture(scope="module")
def lifted(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[RunningServer]:
    """A server that takes drafts whose ceilings are lifted."""
    with serving(tmp_path_factory.mktemp("lifted") / "data", [folder], "--dev") as running:
        yield running


def with_lines(files: Files, path: str, lines: bytes) -> Files:
    """Returns files of which one has more lines."""
    return {**files, path: files[path] + lines}


def without_ceilings(files: Files) -> Files:
    """Returns files whose ceilings let everybody in who has any role, and without guardrails."""
    files = {path: content for path, content in files.items() if path != "guardrails.yaml"}
    roles = [line.strip(" -") for line in files["gatebook.yaml"].decode().splitlines() if line.startswith("  - role:")]
    lines = []
    for line in files[CATALOGUE].decode().splitlines():
        before, key, rest = line.partition("roles: [")
        lines.append(f"{before}{key}{', '.join(roles)}]{rest.partition(']')[2]}" if key else line)
    text = "\n".join(lines)
    for count in ("8", "10", "12", "15", "20", "40", "50", "60", "0"):
        text = text.replace(f"people_max: {count}\n", "people_max: all\n").replace(
            f"people_max: {count}}}", "people_max: all}"
        )
    return {**files, CATALOGUE: text.encode() + b"\n"}


def messages(files: Files) -> list[pb.PolicyFile]:
    """Returns files as messages."""
    return [pb.PolicyFile(path=path, content=content) for path, content in files.items()]


def publish(channel: grpc.Channel, files: Files) -> pb.PublishPolicySetResponse:
    """Publishes a set."""
    return PolicyServiceStub(channel).PublishPolicySet(
        pb.PublishPolicySetRequest(policy_set="telemetry", files=messages(files)), timeout=60
    )


def refusal(channel: grpc.Channel, files: Files) -> error_details_pb2.PreconditionFailure:
    """Publishes a set that must be refused, and returns why it is."""
    with pytest.raises(grpc.RpcError) as caught:
        publish(channel, files)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    why = error_details_pb2.PreconditionFailure()
    assert any(detail.Unpack(why) for detail in details_of(caught.value))
    return why


def findings(channel: grpc.Channel, files: Files) -> list[pb.Finding]:
    """Returns what a validation finds of audiences."""
    request = pb.ValidatePolicySetRequest(policy_set="telemetry", files=messages(files))
    found = PolicyServiceStub(channel).ValidatePolicySet(request, timeout=60).findings
    return [finding for finding in found if finding.invariant.startswith("AUDIENCE_")]


def active(channel: grpc.Channel) -> tuple[str, int]:
    """Returns the active revision."""
    record = PolicyServiceStub(channel).GetRevision(pb.GetRevisionRequest(policy_set="telemetry")).record
    return record.revision.digest, record.revision.number


def newest_step(channel: grpc.Channel, step: entry_pb2.PolicyStep.ValueType) -> entry_pb2.PolicyEntry:
    """Returns the newest entry of a step in the life of a set."""
    request = audit_service_pb2.ListEntriesRequest(
        filter=audit_service_pb2.EntryFilter(kind=entry_pb2.ENTRY_KIND_POLICY),
        order=audit_service_pb2.ENTRY_ORDER_NEWEST_FIRST,
    )
    entries = [record.entry.policy for record in AuditServiceStub(channel).ListEntries(request).entries]
    return next(entry for entry in entries if entry.step == step)


def ask(channel: grpc.Channel, request: types_pb2.AccessRequest) -> types_pb2.Decision:
    """Asks a request."""
    check = access_service_pb2.CheckAccessRequest(policy_set="telemetry", access=request)
    return AccessServiceStub(channel).CheckAccess(check, timeout=30).decision


def require_refused(server: RunningServer, lifted: RunningServer, files: Files, dataset: str) -> pb.Finding:
    """Requires that a draft is refused for the readers of a dataset, and that its counterexample is real."""
    with server.channel() as channel:
        before = active(channel)
        why = refusal(channel, files)
        assert active(channel) == before
        refused = newest_step(channel, entry_pb2.POLICY_STEP_REFUSED)
        exceeded = (it for it in findings(channel, files) if it.invariant.startswith("AUDIENCE"))
        found = next(it for it in exceeded if (it.dataset, it.action) == (dataset, "read"))
    assert found.invariant in {violation.type for violation in why.violations}
    told = {(it.invariant, it.dataset, it.action, it.excess, it.ceiling) for it in refused.findings}
    assert (found.invariant, found.dataset, found.action, found.excess, found.ceiling) in told
    example = found.counterexample
    assert (example.confirmed, example.path[-1].file, bool(example.path[-1].line)) == (True, found.file, True)
    with lifted.channel() as channel:
        publish(channel, without_ceilings(files))
        decision = ask(channel, example.request)
    assert decision.effect == types_pb2.EFFECT_ALLOW, decision.message
    return found


def test_at_01_a_grant_beyond_the_ceiling_is_refused(
    server: RunningServer, lifted: RunningServer, shipped: Files
) -> None:
    """Prompts opened to every employee are refused: with the excess, the ceiling, and noor, who would read them."""
    found = require_refused(
        server,
        lifted,
        with_lines(shipped, MCI, b"p, role:employee, mci.prompts, read, *, True, allow\n"),
        "mci.prompts",
    )
    rule = found.counterexample.path[-1]

    assert (found.invariant, found.action, found.excess, found.ceiling) == ("AUDIENCE_CEILING", "read", OUTSIDE, 40)
    assert found.counterexample.subject == "noor"
    assert [step.text for step in found.counterexample.path] == [
        "noor has role:employee",
        "p, role:employee, mci.prompts, read, *, True, allow",
    ]
    assert shipped[MCI].count(b"\n") + 1 == rule.line


def test_at_01_a_grant_within_the_ceiling_is_published(lifted: RunningServer, shipped: Files) -> None:
    """The same rule for researchers is published."""
    rule = b"p, role:mci_researcher, mci.prompts, read, *, True, allow\n"
    with lifted.channel() as channel:
        response = publish(channel, with_lines(shipped, MCI, rule))

    assert response.changed
    assert [it for it in response.findings if it.severity == pb.SEVERITY_ERROR] == []


def test_at_01_the_command_names_the_person_and_the_way(server: RunningServer, folder: Path, tmp_path: Path) -> None:
    """`gatebook policy publish` and `test` print the finding with its place and end with 1."""
    draft = tmp_path / "draft"
    shutil.copytree(folder, draft)
    with (draft / MCI).open("a", encoding="utf-8") as file:
        file.write("p, role:employee, mci.prompts, read, *, True, allow\n")
    done = gatebook("policy", "publish", str(draft), "--target", server.target)
    tested = gatebook("policy", "test", str(draft), "--json")
    told = json.loads(tested.stdout)["findings"]

    assert (done.returncode, tested.returncode) == (1, 1)
    assert "policy/mci.csv:65:1" in done.stderr
    assert "noor has role:employee (personas.jsonl:16)" in done.stderr
    assert "refused, nothing was changed" in done.stderr
    assert [finding["counterexample"]["subject"] for finding in told] == ["noor"]


def test_at_02a_a_role_made_child_of_a_ceiling_role(
    server: RunningServer, lifted: RunningServer, shipped: Files
) -> None:
    """A link that gives every employee the researchers' role does not also raise the ceiling."""
    files = with_lines(shipped, ROLES, b"g, role:employee, role:mci_researcher\n")
    found = require_refused(server, lifted, files, "mci.prompts")

    assert [step.file for step in found.counterexample.path] == ["personas.jsonl", ROLES, MCI]


def test_at_02b_a_wildcard(server: RunningServer, lifted: RunningServer, shipped: Files) -> None:
    """A rule on a namespace reaches every dataset in it."""
    files = with_lines(shipped, MCI, b"p, role:employee, mci.*, read, *, True, allow\n")
    with server.channel() as channel:
        datasets = {found.dataset for found in findings(channel, files)}

    require_refused(server, lifted, files, "mci.prompts")
    assert {name for name in datasets if name.startswith("mci.")} == {
        f"mci.{name}"
        for name in (
            *("keystroke_events", "pointer_events", "screen_frames", "prompts"),
            *("transcripts", "private_conversations", "source_activity"),
        )
    }


@pytest.mark.parametrize(
    "condition",
    [
        "r.sub.level >= 0",
        "r.sub.level < 0 || r.row.tool != 'none such'",
        "r.ctx.network == 'corp'",
        "!(r.row.tool == r.sub.id)",
    ],
)
def test_at_02c_a_condition_that_everybody_meets(
    server: RunningServer, lifted: RunningServer, shipped: Files, condition: str
) -> None:
    """A condition that attributes, or some row or circumstance, make true for everybody keeps nobody out."""
    rule = f"p, role:employee, mci.prompts, read, *, {condition}, allow\n".encode()
    found = require_refused(server, lifted, with_lines(shipped, MCI, rule), "mci.prompts")

    assert found.excess == OUTSIDE


@pytest.mark.parametrize(
    "narrowed",
    [
        b"",
        b"p, role:employee, mci.prompts, read, *, r.row.tool == 'x', deny\n",
        b"p, role:employee, mci.prompts, read, *, r.sub.level > 3, deny\n",
    ],
    ids=["removed", "narrowed to rows", "narrowed to people"],
)
def test_at_02d_a_deny_narrowed_or_removed(
    server: RunningServer, lifted: RunningServer, shipped: Files, narrowed: bytes
) -> None:
    """What a deny covered comes to light when it goes."""
    covered = with_lines(shipped, MCI, COVERED)
    deny = COVERED.splitlines(keepends=True)[1]
    with server.channel() as channel:
        assert [found.dataset for found in findings(channel, covered)] == []

    found = require_refused(server, lifted, {**covered, MCI: covered[MCI].replace(deny, narrowed)}, "mci.prompts")
    assert found.excess == (1 if b"level" in narrowed else OUTSIDE)


def test_at_02e_a_tag_removed_from_a_column(server: RunningServer, lifted: RunningServer, shipped: Files) -> None:
    """A column that loses its tag loses the deny that stood on it."""
    tagged = with_lines(shipped, MCI, UNCOVERED)
    lines = tagged[CATALOGUE].decode()
    tokens = "      tokens_in: {type: bigint, tags: [usage.token]}\n"
    start = lines.index("  mci.prompts:")
    untagged = lines[:start] + lines[start:].replace(tokens, "      tokens_in: bigint\n", 1)
    with server.channel() as channel:
        assert [found.dataset for found in findings(channel, tagged)] == []

    found = require_refused(server, lifted, {**tagged, CATALOGUE: untagged.encode()}, "mci.prompts")
    assert list(found.counterexample.request.resource.columns) == ["tokens_in"]


@contextmanager
def grown(tmp_path: Path, folder: Path) -> Iterator[tuple[RunningServer, Path]]:
    """Serves the set with metrics, and makes a directory in which the researchers have grown."""
    people = tmp_path / "people"
    shutil.copytree(DIRECTORY, people)
    lines = [
        msgspec.json.encode(
            {"type": "user", "id": f"new-{n}", "attributes": {"level": 5}, "groups": ["role:mci_researcher"]}
        )
        for n in range(RESEARCHERS)
    ]
    (people / "grown.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    with serving(tmp_path / "data", [folder], "--dev", "--metrics", "127.0.0.1:0") as running:
        yield running, people


def test_at_02f_a_group_grows_past_the_head_count(tmp_path: Path, folder: Path) -> None:
    """The live scan fires when the directory grows: who is not proved within is denied, also after a restart."""
    with grown(tmp_path, folder) as (running, people):
        metrics = str(next(line for line in running.lines if line["event"] == "metrics")["listen"])
        access = types_pb2.AccessRequest(
            subject=types_pb2.Subject(type="user", id="farah"),
            action=types_pb2.Action(name="read"),
            resource=types_pb2.Resource(id="mci.prompts", columns=["prompt_id"]),
            purpose="model_training",
        )
        with running.channel() as channel:
            before = ask(channel, access)
            done = gatebook("directory", "publish", str(people), "--target", running.target)
            after = ask(channel, access)
            elsewhere = types_pb2.AccessRequest()
            elsewhere.CopyFrom(access)
            elsewhere.resource.id, elsewhere.resource.columns[:], elsewhere.purpose = (
                "mci.source_activity",
                ["title"],
                "program_assessment",
            )
            within = ask(channel, elsewhere)
            entry = newest_step(channel, entry_pb2.POLICY_STEP_DIRECTORY_ACTIVATED)
        exceeded = scrape(metrics).value("gatebook_ceilings_exceeded", policy_set="telemetry")
        logged = [line for line in running.lines if line["event"] == "ceiling exceeded"]
    with serving(tmp_path / "data") as running, running.channel() as channel:
        restarted = ask(channel, access)

    assert (before.effect, after.effect) == (types_pb2.EFFECT_ALLOW, types_pb2.EFFECT_DENY)
    assert (after.reason, restarted.reason) == (types_pb2.REASON_CODE_CEILING_EXCEEDED,) * 2
    assert within.reason != types_pb2.REASON_CODE_CEILING_EXCEEDED
    assert done.returncode == 0
    assert "(AUDIENCE_HEAD_COUNT)" in done.stderr
    assert {finding.invariant for finding in entry.findings} == {"AUDIENCE_HEAD_COUNT"}
    assert exceeded == len(logged) > 0


def test_at_15_figures_for_everybody_and_ranks_for_few(
    server: RunningServer, lifted: RunningServer, shipped: Files
) -> None:
    """Every employee reads the figures of teams, and the set is published with that; with ranks it would not be."""
    with server.channel() as channel:
        assert findings(channel, shipped) == []
    rule = b"p, role:employee, ai_usage.leaderboard, read, recognition.badge, True, allow\n"
    found = require_refused(server, lifted, with_lines(shipped, "policy/ai_usage.csv", rule), "ai_usage.leaderboard")

    assert (found.invariant, found.ceiling, found.excess) == ("AUDIENCE_CEILING", 50, PEOPLE)
