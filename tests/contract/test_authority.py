"""Who may call what: the policy set `gatebook`, on a real server."""

from __future__ import annotations

import asyncio
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ruamel.yaml import YAML
from tests.authorised import (
    GRANTED,
    PEOPLE,
    Ended,
    authorised,
    caller,
    check,
    claiming,
    gatebook_set,
    publish,
    publishing,
    question,
    read_to_the_end,
)
from tests.serving import POLICIES, gatebook, serving

from gatebook.config import Quota
from gatebook.policy.gatebook_set import OPERATIONS
from gatebook.rpc import listening
from gatebook.v1 import access_service_pb2, audit_service_pb2, policy_service_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub

MATRIX: dict[str, list[str]] = YAML(typ="safe").load(
    (Path(__file__).parents[1] / "cases" / "authority.yaml").read_text()
)
ROLES = [f"g, cn:{name}, role:{name}" for name in MATRIX if name != "stranger"]
CALLERS = {name: caller(name) for name in MATRIX}
REFUSAL = "the policy set `gatebook` does not permit this call"
REQUESTS = {"TailEntries": audit_service_pb2.TailEntriesRequest(start_index=0).SerializeToString()}
BASIC = POLICIES / "basic"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


def methods() -> Iterator[tuple[str, str]]:
    """Yields every method that a server has, by operation and path, and one that it does not have."""
    pool = descriptor_pool.Default()
    for service in (*listening.SERVICES, REFLECTION, listening.CHANNELZ):
        for method in pool.FindServiceByName(service).methods:
            own = service.startswith(("gatebook.", "envoy."))
            operation = method.name if own else f"{service.rpartition('.')[2]}.{method.name}"
            yield operation, f"/{service}/{method.name}"
    yield "ServerReflection.ServerReflectionInfo", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    yield "Unimplemented", "/gatebook.v1.AccessService/CheckAcces"
    yield "Unimplemented", "/"


def health(channel: grpc.aio.Channel) -> Any:  # noqa: ANN401  # the stub has no types for asyncio
    """Returns what asks for the health of a server."""
    return health_pb2_grpc.HealthStub(channel)


async def test_who_may_call_which_method(tmp_path: Path) -> None:
    """Each method of the server, named or not, is permitted to exactly the callers that the matrix says."""
    permitted: dict[str, set[str]] = {name: set() for name in MATRIX}
    refused = set()
    async with authorised(tmp_path, CALLERS, *ROLES) as server:
        for name in MATRIX:
            for operation, path in methods():
                how, answer = await server.call(name, path, REQUESTS.get(operation, b""))
                if how.code == "PERMISSION_DENIED":
                    refused.add(how)
                elif operation == "Check" and b"PERMISSION_DENIED" in answer:
                    pass  # Envoy is answered with a denial
                else:
                    permitted[name].add(operation)

    assert {name: set(operations) for name, operations in MATRIX.items()} == permitted
    assert {operation for operation, _ in methods()} == set().union(*permitted.values())
    assert [REFUSAL] == [how.message for how in refused]


def test_every_operation_is_known() -> None:
    """The vocabulary of the set `gatebook` is what servers offer."""
    assert {operation for operation, _ in methods()} <= set(OPERATIONS)


async def test_health_is_open_to_strangers(tmp_path: Path) -> None:
    """Whoever asks is told whether the server can answer, and of what it does not serve as the standard says."""
    async with authorised(tmp_path, CALLERS) as server, server.channel() as channel:
        stub = health(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), metadata=claiming("stranger"))
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.Check(health_pb2.HealthCheckRequest(service="nothing"), metadata=claiming("stranger"))

    assert health_pb2.HealthCheckResponse.SERVING == answer.status
    assert grpc.StatusCode.NOT_FOUND == unknown.value.code()


async def test_a_stranger_cannot_tell_what_exists(tmp_path: Path) -> None:
    """Of a set, a revision, an entry, a subject, a method or a service, each refusal is the same to the last byte."""
    get_revision, get_entry = policy_service_pb2.GetRevisionRequest, audit_service_pb2.GetEntryRequest
    calls = [
        ("/gatebook.v1.AccessService/CheckAccess", access_service_pb2.CheckAccessRequest(access=question())),
        ("/gatebook.v1.AccessService/CheckAccess", access_service_pb2.CheckAccessRequest(policy_set="none")),
        ("/gatebook.v1.PolicyService/GetRevision", get_revision(policy_set="basic")),
        ("/gatebook.v1.PolicyService/GetRevision", get_revision(policy_set="none")),
        ("/gatebook.v1.AuditService/GetEntry", get_entry(index=0)),
        ("/gatebook.v1.AuditService/GetEntry", get_entry(index=10_000)),
        ("/gatebook.v1.PolicyService/PublishPolicySet", publishing(BASIC)),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", get_entry()),
        ("/grpc.reflection.v2.ServerReflection/ServerReflectionInfo", get_entry()),
    ]
    async with authorised(tmp_path, CALLERS, *ROLES) as server:
        answers = {(await server.call("stranger", path, request.SerializeToString()))[0] for path, request in calls}

    [told] = answers
    assert ("PERMISSION_DENIED", REFUSAL) == (told.code, told.message)
    info = error_details_pb2.ErrorInfo()
    [detail] = told.status.details
    assert detail.Unpack(info)
    assert ("PERMISSION_DENIED", {}) == (info.reason, dict(info.metadata))


NARROW = ["p, cn:narrow, operation:check, call, *, True, allow", "p, cn:narrow, employee, ask, basic, True, allow"]


async def test_who_may_ask_of_one_set_learns_nothing_of_others(tmp_path: Path) -> None:
    """Asking a set that exists and one that does not, about a type that may not be asked about, ends alike."""
    others = [("gatebook", "employee"), ("none", "employee"), ("basic", "agent"), ("none", "agent")]
    async with authorised(tmp_path, {"narrow": caller("narrow")}, *NARROW) as server:
        allowed = await check(server, "narrow", question())
        unnamed = await check(server, "narrow", question(), "")
        refused = {await check(server, "narrow", question(type_=type_), name) for name, type_ in others}

    assert Ended("OK") == allowed == unnamed
    assert [("PERMISSION_DENIED", REFUSAL)] == [(one.code, one.message) for one in refused]


async def test_a_search_tells_nothing_of_other_sets(tmp_path: Path) -> None:
    """A search in a set or for a type that one may not ask about is refused alike, whether or not they exist."""
    search = ["p, cn:narrow, operation:search, call, *, True, allow", *NARROW]
    answers = set()
    async with authorised(tmp_path, {"narrow": caller("narrow")}, *search) as server:
        for name, type_ in (("none", "employee"), ("basic", "agent"), ("gatebook", "employee")):
            request = access_service_pb2.SearchSubjectsRequest(policy_set=name, access=question(type_=type_))
            path = "/gatebook.v1.AccessService/SearchSubjects"
            answers.add((await server.call("narrow", path, request.SerializeToString()))[0])

    assert [("PERMISSION_DENIED", REFUSAL)] == [(one.code, one.message) for one in answers]


FOR_AGENTS = (
    "p, token, *, ask, *, r.row.part == 'subject' && r.row.other_id == r.sub.subject_id "
    "&& r.row.other_type == r.sub.subject_type, allow"
)


async def test_people_ask_about_themselves_alone(tmp_path: Path) -> None:
    """A person asks about themselves and nobody else, in any part of a question; a service about anyone."""
    asked = [
        ("farah", question("farah"), "OK"),
        ("farah", question("kai"), "PERMISSION_DENIED"),
        ("farah", question("farah", "service"), "PERMISSION_DENIED"),
        ("farah", question("farah", ""), "PERMISSION_DENIED"),
        ("farah", question("farah", actor="helper"), "PERMISSION_DENIED"),
        ("kai", question("kai"), "OK"),
        ("trino", question("kai"), "OK"),
        ("trino", question("kai", actor="helper"), "OK"),
    ]
    async with authorised(tmp_path, PEOPLE, *GRANTED) as server:
        codes = [(await check(server, name, access)).code for name, access, _ in asked]

    assert [code for _, _, code in asked] == codes


async def test_an_agent_asks_on_behalf_of_others_where_a_rule_says_so(tmp_path: Path) -> None:
    """With a rule about who acts, an agent asks about others if it is the actor, and not in the name of another."""
    async with authorised(tmp_path, PEOPLE, *GRANTED, FOR_AGENTS) as server:
        own = await check(server, "helper", question("farah", actor="helper"))
        another = await check(server, "helper", question("farah", actor="other"))
        alone = await check(server, "helper", question("farah"))

    assert ["OK", "PERMISSION_DENIED", "PERMISSION_DENIED"] == [own.code, another.code, alone.code]


def results(answer: Any) -> list[tuple[str, str]]:  # noqa: ANN401  # of a batch or of a stream
    """Returns what each item of an answer says."""
    return [(one.correlation_id, "error" if one.HasField("error") else "decision") for one in answer.results]


async def test_each_item_of_a_batch_and_stream_is_permitted_for_itself(tmp_path: Path) -> None:
    """What one may not ask is the error of that item; the others are answered, in their places."""
    items = [
        access_service_pb2.CheckItem(correlation_id=str(i), access=question(subject))
        for i, subject in enumerate(("farah", "kai", "farah", "alice"))
    ]
    async with authorised(tmp_path, PEOPLE, *GRANTED) as server, server.channel() as channel:
        stub, metadata = AccessServiceStub(channel), claiming("farah")
        batch = await stub.BatchCheckAccess(access_service_pb2.BatchCheckAccessRequest(items=items), metadata=metadata)
        stream = stub.StreamCheckAccess(
            iter([access_service_pb2.StreamCheckAccessRequest(items=items)]), metadata=metadata
        )
        streamed = await stream.read()
        none = access_service_pb2.BatchCheckAccessRequest(items=items[1:2], policy_set="none")
        elsewhere = await stub.BatchCheckAccess(none, metadata=metadata)

    expected = [("0", "decision"), ("1", "error"), ("2", "decision"), ("3", "error")]
    assert expected == results(batch)
    assert expected == results(streamed)
    assert [("1", "error")] == results(elsewhere)
    assert {grpc.StatusCode.PERMISSION_DENIED.value[0]} == {
        one.error.code for answer in (batch, streamed, elsewhere) for one in answer.results if one.HasField("error")
    }


async def test_who_publishes_which_set(tmp_path: Path) -> None:
    """A publisher publishes other sets and not `gatebook`, a keeper that one alone; a dry run needs the same right."""
    changed = gatebook_set(tmp_path / "changed", *ROLES, "# reviewed")
    async with authorised(tmp_path, CALLERS, *ROLES) as server:
        codes = {
            (name, folder.name): (await publish(server, name, folder, validate_only=True)).code
            for name in ("publisher", "keeper", "author", "local")
            for folder in (BASIC, changed)
        }

    assert {who for who, code in codes.items() if code == "OK"} == {("publisher", "basic"), ("keeper", "gatebook")}
    assert {"OK", "PERMISSION_DENIED"} == set(codes.values())


async def test_local_publishes_with_dev_alone(tmp_path: Path) -> None:
    """Whoever calls in plain text publishes when the server runs with `--dev`, and else not."""
    async with authorised(tmp_path / "plain", {}) as server:
        plain = await publish(server, "local", BASIC)
    async with authorised(tmp_path / "dev", {}, dev=True) as server:
        dev = await publish(server, "local", BASIC)

    assert ["PERMISSION_DENIED", "OK"] == [plain.code, dev.code]


@pytest.mark.parametrize(
    ("without", "finding"),
    [
        (("cn:keeper",), "`cn:keeper` could not publish `gatebook` any more"),
        (("publish, gatebook",), "nobody could publish `gatebook` any more"),
        (("role:keeper, operation:publish",), "`cn:keeper` could not publish `gatebook` any more"),
        (("PublishPolicySet",), "nobody could publish `gatebook` any more"),
    ],
    ids=["the publisher", "everybody", "the call from the publisher", "the call from everybody"],
)
async def test_nobody_locks_themselves_out(tmp_path: Path, without: tuple[str, ...], finding: str) -> None:
    """A revision that takes the set from its publisher, or from everybody, is refused, and the old one stays."""
    roles = [line for line in ROLES if not any(word in line for word in without)]
    draft = gatebook_set(tmp_path / "draft", *roles, without=without)
    async with authorised(tmp_path, CALLERS, *ROLES) as server:
        refused = await publish(server, "keeper", draft)
        still = await publish(server, "keeper", gatebook_set(tmp_path / "still", *ROLES, "# reviewed"))

    assert "FAILED_PRECONDITION" == refused.code
    assert finding.encode() in refused.details
    assert Ended("OK") == still


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("r = sub, obj, act, set, ctx, row", "r = sub, act, obj, set, ctx, row", b"model.conf:4:1"),
        (" && !some(where (p.eft == deny))", "", b"model.conf:14:1"),
        ("operation:check, call, *, True", "operation:check, cal, *, True", b"policy.csv:15:"),
        ("g, local, role:service", "g, local, service", b"policy.csv:"),
    ],
    ids=["tokens in another order", "another effect", "an act that is never asked", "a role that is none"],
)
async def test_a_set_that_does_not_fit_the_door_is_refused(tmp_path: Path, old: str, new: str, place: bytes) -> None:
    """The tokens, the effect and the acts of the set are what the door asks, or it is refused by file and line."""
    draft = gatebook_set(tmp_path / "draft")
    for file in draft.iterdir():
        file.write_text(file.read_text().replace(old, new, 1))
    async with authorised(tmp_path, {}, dev=True) as server:
        refused = await publish(server, "local", draft)

    assert "FAILED_PRECONDITION" == refused.code
    assert place in refused.details


async def test_a_revoked_right_is_gone_with_the_next_call(tmp_path: Path) -> None:
    """The call after a publish that revokes is refused, on an open connection and in an open stream alike."""
    revoked = gatebook_set(tmp_path / "revoked", *(line for line in ROLES if "cn:service" not in line))
    message = access_service_pb2.StreamCheckAccessRequest(items=[access_service_pb2.CheckItem(access=question())])
    async with authorised(tmp_path, CALLERS, *ROLES) as server, server.channel() as channel:
        stub = AccessServiceStub(channel)
        stream = stub.StreamCheckAccess(metadata=claiming("service"))
        await stream.write(message)
        before = await stream.read()
        once = await check(server, "service", question())
        assert Ended("OK") == await publish(server, "keeper", revoked)
        after = await check(server, "service", question())
        await stream.write(message)
        try:
            late = results(await stream.read())
        except grpc.aio.AioRpcError as error:
            late = [("", error.code().name)]
        stream.cancel()

    assert [("", "decision")] == results(before)
    assert ["OK", "PERMISSION_DENIED"] == [once.code, after.code]
    assert late in ([("", "error")], [("", "PERMISSION_DENIED")])


async def test_equal_ids_with_other_attributes_are_judged_apart(tmp_path: Path) -> None:
    """What one caller may do is not remembered for another with the same id and other attributes, kind or subject."""
    rule = "p, cn:robot, operation:check, call, *, r.sub.kind == 'certificate' && r.sub.level == 1, allow"
    callers = {}
    for name, level in (("one", 1), ("two", 2), ("true", True), ("text", "1"), ("none", None)):
        callers[name] = msgspec_replace(caller("robot"), {"level": level})
    codes = []
    async with authorised(tmp_path, callers, rule) as server:
        for name in ("one", "two", "one", "true", "text", "none", "one"):
            path = "/gatebook.v1.AccessService/CheckAccess"
            codes.append((await server.call(name, path))[0].code == "PERMISSION_DENIED")

    assert [False, True, False, True, True, True, False] == codes


async def test_nothing_is_permitted_without_a_revision(tmp_path: Path) -> None:
    """Where no revision of the set is active, everybody is refused everything but health."""
    async with authorised(tmp_path, CALLERS, *ROLES) as server:
        state = server.service.revisions.state
        others = {name: snapshot for name, snapshot in state.snapshots.items() if name != "gatebook"}
        server.service.revisions.state = type(state)(others, state.policy_sets)
        codes = {
            (await server.call(name, path))[0].code
            for name in (*MATRIX, "local")
            for operation, path in methods()
            if operation != "Check"  # Envoy is answered with a denial
        }
        async with server.channel() as channel:
            healthy = await health(channel).Check(health_pb2.HealthCheckRequest())

    assert {"PERMISSION_DENIED"} == codes
    assert health_pb2.HealthCheckResponse.SERVING == healthy.status


async def test_nobody_is_called_as_a_role(tmp_path: Path) -> None:
    """A caller whose id reads like a role has no rights by it."""
    fake = {"fake": type(caller("x"))("role:auditor", caller("x").kind)}
    async with authorised(tmp_path, fake) as server:
        how, _ = await server.call("fake", "/gatebook.v1.AuditService/ListEntries")

    assert "PERMISSION_DENIED" == how.code


async def test_the_type_of_a_subject_cannot_be_left_out(tmp_path: Path) -> None:
    """Where a set finds a subject by its id alone, whoever may not ask about its type may not ask without one."""
    known = tmp_path / "known"
    shutil.copytree(BASIC, known, ignore=shutil.ignore_patterns("tests"))
    (known / "directory").mkdir()
    (known / "directory" / "subjects.jsonl").write_text('{"type":"user","id":"alice"}\n{"type":"robot","id":"r2"}\n')
    lines = ["g, cn:trino, role:service", "p, cn:trino, user, ask, *, True, deny"]
    by_row = ["g, cn:spark, role:service", "p, cn:spark, *, ask, *, r.row.type == 'user', deny"]
    callers = {name: caller(name) for name in ("trino", "spark")}
    async with authorised(tmp_path, callers, *lines, *by_row, policies=[known]) as server:
        codes = {
            (name, type_, id_): (await check(server, name, question(id_, type_), "known")).code
            for name in callers
            for type_, id_ in (("user", "alice"), ("", "alice"), ("robot", "r2"), ("", "nobody"))
        }

    refused = {key for key, code in codes.items() if code == "PERMISSION_DENIED"}
    assert {(n, t, i) for n in callers for t, i in (("user", "alice"), ("", "alice"), ("", "nobody"))} == refused
    assert {"OK", "PERMISSION_DENIED"} == set(codes.values())


async def test_refused_items_are_paid_for(tmp_path: Path) -> None:
    """Who sends items that it may not ask is held to its rate like who may ask them, on a stream too."""
    async with authorised(tmp_path, PEOPLE, *GRANTED) as server, server.channel() as channel:
        server.door.admission.take_quotas({"corp:farah": Quota(checks_per_second=1.0)})
        item = access_service_pb2.CheckItem(access=question("kai"))
        message = access_service_pb2.StreamCheckAccessRequest(items=[item] * 20)
        stream = AccessServiceStub(channel).StreamCheckAccess(iter([message] * 3), metadata=claiming("farah"))
        with pytest.raises(grpc.aio.AioRpcError) as over:
            await read_to_the_end(stream)

    assert grpc.StatusCode.RESOURCE_EXHAUSTED == over.value.code()


async def test_no_page_token_breaks_a_list(tmp_path: Path) -> None:
    """A page token of any length is a wrong one, and no fault of the server."""
    async with authorised(tmp_path, CALLERS, *ROLES) as server:
        request = policy_service_pb2.ListRevisionsRequest(page_token="9" * 5_000).SerializeToString()
        how, _ = await server.call("author", "/gatebook.v1.PolicyService/ListRevisions", request)

    assert "INVALID_ARGUMENT" == how.code


async def test_names_that_callers_make_up_take_no_room(tmp_path: Path) -> None:
    """Whoever names sets that no server has, of any length, makes it remember next to nothing."""
    async with authorised(tmp_path, PEOPLE, *GRANTED) as server:
        await check(server, "farah", question("kai"))
        tracemalloc.start()
        for number in range(40):
            request = access_service_pb2.CheckAccessRequest(policy_set=f"0{number}" * 150_000, access=question("kai"))
            path = "/gatebook.v1.AccessService/CheckAccess"
            how, _ = await server.call("farah", path, request.SerializeToString())
            assert how.code == "RESOURCE_EXHAUSTED"
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert kept < 5_000_000


def test_the_shipped_set_and_how_it_is_put_back(tmp_path: Path) -> None:
    """A server publishes the shipped set once, serves `basic` as the only one, and puts it back when it is told to."""
    data = tmp_path / "data"
    locked = gatebook_set(tmp_path, "p, role:keeper, *, call, *, True, allow", without=["g, local"])
    with serving(data, [BASIC, locked]) as server:
        refused = gatebook("check", "alice", "read", "report:weekly", "--target", server.target)
    with serving(data, [], "--reset-gatebook") as server:
        checked = gatebook("check", "alice", "read", "report:weekly", "--target", server.target)
        listed = gatebook("policy", "list", "--target", server.target, "--json")
        published = gatebook("policy", "publish", str(BASIC), "--target", server.target)

    assert (1, 0) == (refused.returncode, checked.returncode), refused.stderr + checked.stderr
    assert REFUSAL in refused.stderr
    assert 2 == listed.stdout.count('"policy_set": "gatebook"')
    assert 1 == published.returncode
    assert "gatebook serve --dev" in published.stderr


def msgspec_replace(one: Any, attributes: dict[str, Any]) -> Any:  # noqa: ANN401  # a caller
    """Returns a caller with attributes."""
    return type(one)(one.id, one.kind, attributes)


async def test_many_callers_at_once_are_judged_apart(tmp_path: Path) -> None:
    """Calls of different callers that overlap are each answered by the rights of their own."""
    async with authorised(tmp_path, CALLERS, *ROLES) as server:
        names = ["service", "stranger", "auditor"] * 20
        codes = await asyncio.gather(*(check(server, name, question()) for name in names))

    assert ["OK" if name == "service" else "PERMISSION_DENIED" for name in names] == [one.code for one in codes]
