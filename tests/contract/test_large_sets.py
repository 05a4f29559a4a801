"""Large policy sets: judged aside, built beside the checks, swapped at once, freed."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from tests.serving import POLICIES, RunningServer, gatebook, serving

from gatebook.cli.uploading import WHOLE_BYTES_MAX
from gatebook.config import Config
from gatebook.errors import DrainingError
from gatebook.policy import bundle
from gatebook.policy.policy_set import FINDINGS_MAX, PolicySet
from gatebook.revisions.aside import ASIDE_BYTES
from gatebook.revisions.publisher import THE_SERVICE
from gatebook.revisions.remains import SMALL
from gatebook.revisions.validate import validate
from gatebook.rpc import encode
from gatebook.rpc.listening import listening
from gatebook.server import open_door, publish_folders
from gatebook.service import open_service
from gatebook.v1 import access_service_pb2, types_pb2
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

LINES = 20_000
PUBLISHES = 4
MANY_PUBLISHES = 10
CHECKERS = 4
WAIT_SECONDS = 120
PART_BYTES = 100_000
FAULTS = 1_200
"""More than are named."""
MODEL = b"""[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act
"""


def large(number: int, *more: str, count: int = LINES) -> dict[str, bytes]:
    """Returns a set of many lines, whose revisions of even number deny what those of odd number allow."""
    lines = [f"p, group{rule}, data{rule // 10}, read, allow" for rule in range(count // 10)]
    lines += [f"g, user{user}, group{user // 10}" for user in range(count - count // 10)]
    lines += [f"p, user7, data0, write, {'allow' if number % 2 else 'deny'}", f"p, nobody{number}, data0, read, allow"]
    return {"model.conf": MODEL, "policy.csv": "\n".join([*lines, *more, ""]).encode()}


def uploaded(files: dict[str, bytes], *, validate_only: bool = False) -> Iterator[pb.UploadPolicySetRequest]:
    """Yields a set in parts."""
    yield pb.UploadPolicySetRequest(part=pb.PublishPolicySetRequest(policy_set="large", validate_only=validate_only))
    for path, content in files.items():
        for start in range(0, len(content), PART_BYTES):
            part = pb.PolicyFile(path=path, content=content[start : start + PART_BYTES], continues=start > 0)
            yield pb.UploadPolicySetRequest(part=pb.PublishPolicySetRequest(files=[part]))


def publish(channel: grpc.Channel, files: dict[str, bytes]) -> pb.PublishPolicySetResponse:
    """Publishes a set in parts."""
    stub = PolicyServiceStub(channel)
    return stub.UploadPolicySet(uploaded(files), timeout=WAIT_SECONDS).published


def check(channel: grpc.Channel) -> types_pb2.Decision:
    """Asks what every revision answers otherwise than the one before it."""
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(id="user7"),
        action=types_pb2.Action(name="write"),
        resource=types_pb2.Resource(id="data0"),
    )
    request = access_service_pb2.CheckAccessRequest(policy_set="large", access=access)
    return AccessServiceStub(channel).CheckAccess(request, timeout=WAIT_SECONDS).decision


@contextmanager
def checking(server: RunningServer, seen: list[list[types_pb2.Decision]]) -> Iterator[None]:
    """Asks from several connections all the time within the block; `seen` has the answers of each in order."""
    over = threading.Event()

    def ask(answers: list[types_pb2.Decision]) -> None:
        with grpc.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            while not over.is_set():
                answers.append(check(channel))

    seen += [[] for _ in range(CHECKERS)]
    threads = [threading.Thread(target=ask, args=(answers,)) for answers in seen]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(WAIT_SECONDS)


def fits(decision: types_pb2.Decision) -> bool:
    """Tells whether an answer is that of the revision that it names."""
    allowed = decision.effect == types_pb2.EFFECT_ALLOW
    return allowed == bool(decision.policy_revision.number % 2) and decision.HasField("receipt")


def test_checks_go_on_while_large_sets_are_published(tmp_path: Path) -> None:
    """Every answer is that of the one revision that it names, none older than before, and none waits for a build."""
    seen: list[list[types_pb2.Decision]] = []
    meanwhile = []
    with serving(tmp_path / "data", [POLICIES / "basic"], "--dev") as server, server.channel() as channel:
        publish(channel, large(1))
        with checking(server, seen):
            for number in range(2, 2 + PUBLISHES):
                before = sum(map(len, seen))
                response = publish(channel, large(number))
                answered = [decision for answers in seen for decision in answers]
                meanwhile.append(sum(map(len, seen)) - before)
                assert (response.revision.number, response.changed) == (number, True)
                assert check(channel).policy_revision.number == number
                assert all(decision.policy_revision.number <= number for decision in answered)
    numbers = [[decision.policy_revision.number for decision in answers] for answers in seen]

    assert all(fits(decision) for answers in seen for decision in answers)
    assert [sorted(it) for it in numbers] == numbers
    # A publish takes a process and a build; whoever waited for either would have been answered once in the meantime.
    assert min(meanwhile) > 2 * CHECKERS


def test_a_large_draft_is_refused_with_every_finding(tmp_path: Path) -> None:
    """What another process finds wrong is what is found in this one; nothing changes, and the reason is told."""
    draft = large(1, "p, group1, data1, read, alow", "g, group1, group2", "g, group2, group1", "q, x")
    found = validate(draft, "large")
    parts = [pb.PolicyFile(path=path, content=content) for path, content in draft.items()]
    with serving(tmp_path / "data", [POLICIES / "basic"], "--dev") as server, server.channel() as channel:
        policies = PolicyServiceStub(channel)
        checked = policies.ValidatePolicySet(pb.ValidatePolicySetRequest(policy_set="large", files=parts))
        with pytest.raises(grpc.RpcError) as refused:
            publish(channel, draft)
        with pytest.raises(grpc.RpcError) as unknown:
            check(channel)
    metadata: dict[str, bytes] = dict(refused.value.trailing_metadata())  # type: ignore[arg-type]  # pairs, in fact
    info, failure = error_details_pb2.ErrorInfo(), error_details_pb2.PreconditionFailure()
    details = status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details

    assert sum(map(len, draft.values())) > ASIDE_BYTES
    assert found.findings
    assert [(it.file, it.line, it.invariant) for it in found.findings] == [
        (it.file, it.line, it.invariant) for it in checked.findings
    ]
    assert found.digest == checked.digest
    assert details[0].Unpack(info)
    assert details[1].Unpack(failure)
    assert info.reason == "POLICY_SET_REFUSED"
    assert {it.invariant for it in found.findings} == {violation.type for violation in failure.violations}
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_parts_are_put_together_as_they_were_cut(tmp_path: Path) -> None:
    """What comes in parts is the same set; a part that continues another file, and a path named twice, are refused."""
    files = large(1)
    wrong = {
        "continues": [pb.PolicyFile(path="model.conf", content=MODEL), pb.PolicyFile(path="a.csv", continues=True)],
        "twice": [pb.PolicyFile(path="model.conf", content=MODEL), pb.PolicyFile(path="model.conf", content=MODEL)],
        "many": [pb.PolicyFile(path=f"tests/{number}.yaml") for number in range(bundle.FILES_MAX + 1)],
    }
    codes = {}
    with serving(tmp_path / "data", [POLICIES / "basic"], "--dev") as server, server.channel() as channel:
        policies = PolicyServiceStub(channel)
        rehearsed = policies.UploadPolicySet(uploaded(files, validate_only=True), timeout=WAIT_SECONDS).published
        response = publish(channel, files)
        for name, parts in wrong.items():
            request = pb.UploadPolicySetRequest(part=pb.PublishPolicySetRequest(policy_set="large", files=parts))
            with pytest.raises(grpc.RpcError) as refused:
                policies.UploadPolicySet(iter([request]), timeout=WAIT_SECONDS)
            codes[name] = refused.value.code()

    assert not rehearsed.changed
    assert bundle.digest(files) == response.revision.digest
    invalid, exhausted = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
    assert {"continues": invalid, "twice": invalid, "many": exhausted} == codes


def test_the_command_sends_what_fits_no_message(tmp_path: Path) -> None:
    """A folder that is larger than a message is published, rehearsed and refused by the same commands as any other.

    Whatever refuses it names every finding, as many as ever are named, and says the same as JSON.
    """
    folder = tmp_path / "large"
    folder.mkdir()
    comments = b"# a line that says nothing at all, and says it at some length, so that there need not be many\n"
    files = {"model.conf": MODEL, "policy.csv": comments * (WHOLE_BYTES_MAX // len(comments) + 1)}
    for path, content in files.items():
        (folder / path).write_bytes(content)
    with serving(tmp_path / "data", [POLICIES / "basic"], "--dev") as server:
        to = ("--target", server.target)
        rehearsed = gatebook("policy", "publish", str(folder), "--dry-run", *to)
        rehearsed_json = gatebook("policy", "publish", str(folder), "--dry-run", "--json", *to)
        published = gatebook("policy", "publish", str(folder), *to)
        with (folder / "policy.csv").open("ab") as file:
            file.write(b"q, nobody, knows, this\n" * FAULTS)
        linted = gatebook("policy", "lint", str(folder), "--json")
        ways = ((), ("--dry-run",))
        refused = [gatebook("policy", "publish", str(folder), *option, *to) for option in ways]
        refused_json = [gatebook("policy", "publish", str(folder), *option, "--json", *to) for option in ways]

    digest = bundle.digest(files)[:12]
    assert (0, f"large {digest}: can be published\n") == (rehearsed.returncode, rehearsed.stdout)
    assert (0, bundle.digest(files)) == (rehearsed_json.returncode, json.loads(rehearsed_json.stdout)["digest"])
    assert (0, f"large revision 1 {digest} is now active\n") == (published.returncode, published.stdout)
    assert [1] * 4 == [it.returncode for it in (*refused, *refused_json)]
    assert [FINDINGS_MAX] * 2 == [it.stderr.count("(UNKNOWN_RULE_TYPE)") for it in refused]
    assert all("nothing was changed" in it.stderr for it in refused)
    assert len(json.loads(linted.stdout)["findings"]) == FINDINGS_MAX
    assert [json.loads(linted.stdout)] * 2 == [json.loads(it.stdout) for it in refused_json]


def test_every_finding_is_told_of_what_is_not_to_be_published(tmp_path: Path) -> None:
    """An upload that asks for every finding is rehearsed and answered, also where it is refused; it never publishes."""
    draft = large(1, *["q, x"] * FAULTS)
    found = validate(draft, "large")
    first, *rest = uploaded(draft, validate_only=True)
    first.every_finding = True
    with serving(tmp_path / "data", [POLICIES / "basic"], "--dev") as server, server.channel() as channel:
        policies = PolicyServiceStub(channel)
        answer = policies.UploadPolicySet(iter([first, *rest]), timeout=WAIT_SECONDS)
        first.part.validate_only = False
        with pytest.raises(grpc.RpcError) as refused:
            policies.UploadPolicySet(iter([first, *rest]), timeout=WAIT_SECONDS)
        with pytest.raises(grpc.RpcError) as unknown:
            check(channel)

    assert len(found.findings) == FINDINGS_MAX
    assert answer == pb.UploadPolicySetResponse(validated=encode.validation(found))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_every_worker_builds_beside_its_own_checks(tmp_path: Path) -> None:
    """Whichever worker takes the parts of a set, every worker answers by it once the publish is answered."""
    seen: list[list[types_pb2.Decision]] = []
    with serving(tmp_path / "data", [POLICIES / "basic"], "--dev", "--workers", "2") as server:
        with server.channel() as channel:
            publish(channel, large(1))
        with checking(server, seen):
            for number in (2, 3):
                with grpc.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                    publish(channel, large(number))
                for _ in range(10):
                    options = [("grpc.use_local_subchannel_pool", 1)]
                    with grpc.insecure_channel(server.target, options=options) as channel:
                        assert check(channel).policy_revision.number == number

    assert all(fits(decision) for answers in seen for decision in answers)
    assert {1, 2, 3} >= {decision.policy_revision.number for answers in seen for decision in answers}


async def test_old_revisions_are_freed(tmp_path: Path) -> None:
    """Of many revisions, only the one that is active is kept."""
    loop = asyncio.get_running_loop()
    gone: list[asyncio.Event] = []
    config = Config(policies=(POLICIES / "basic",), data=tmp_path / "data", dev=True)
    async with open_service(config) as service, asyncio.timeout(WAIT_SECONDS):
        await publish_folders(service, config)
        for number in range(1, PUBLISHES + 2):
            await service.publishing.publish(large(number), "large", THE_SERVICE)
            gone.append(asyncio.Event())
            told = weakref.finalize(service.revisions.snapshot("large"), loop.call_soon_threadsafe, gone[-1].set)
            told.atexit = False
        for event in gone[:-1]:
            await event.wait()

        assert not gone[-1].is_set()
        assert service.revisions.snapshot("large").policy_revision.number == len(gone)


async def test_memory_is_flat_after_many_publishes(tmp_path: Path) -> None:
    """What revisions are made of goes with them: ten publishes leave as many blocks of memory as two did."""
    config = Config(policies=(POLICIES / "basic",), data=tmp_path / "data", dev=True)
    blocks: list[int] = []
    async with open_service(config) as service, asyncio.timeout(WAIT_SECONDS):
        await publish_folders(service, config)
        gc.collect()
        before = sys.getallocatedblocks()
        for number in range(1, MANY_PUBLISHES + 1):
            await service.publishing.publish(large(number, count=2 * SMALL), "large", THE_SERVICE)
            retiring = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "retire"]
            assert len(retiring) == min(number - 1, 1)
            await asyncio.gather(*retiring)
            gc.collect()
            blocks.append(sys.getallocatedblocks())

    one_revision = blocks[0] - before
    assert one_revision > SMALL
    assert max(blocks[2:]) - max(blocks[:2]) < one_revision / 10


async def test_what_was_answered_goes_with_its_revision(tmp_path: Path) -> None:
    """However often a set is published, only of the newest revisions is remembered what was asked and answered."""
    config = Config(policies=(POLICIES / "basic",), data=tmp_path / "data", listen="127.0.0.1:0", dev=True)
    small = 500
    blocks: list[int] = []
    items = [
        access_service_pb2.CheckItem(
            access=types_pb2.AccessRequest(
                subject=types_pb2.Subject(id=f"user{user}"),
                action=types_pb2.Action(name="read"),
                resource=types_pb2.Resource(id=f"data{user // 100}"),
            )
        )
        for user in range(small - small // 10)
    ]
    request = access_service_pb2.BatchCheckAccessRequest(policy_set="large", items=items)
    async with open_service(config) as service, asyncio.timeout(WAIT_SECONDS):
        await publish_folders(service, config)
        async with (
            listening(service, open_door(service, config), config) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            for number in range(1, MANY_PUBLISHES + 1):
                await service.publishing.publish(large(number, count=small), "large", THE_SERVICE)
                stub = AccessServiceStub(channel)
                answer = [await stub.BatchCheckAccess(request) for _ in range(3)][-1]  # what came twice is remembered
                assert {it.decision.policy_revision.number for it in answer.results} == {number}
                assert {it.decision.effect for it in answer.results} == {types_pb2.EFFECT_ALLOW}
                gc.collect()
                blocks.append(sys.getallocatedblocks())

    # Each revision that stayed would keep more than ten blocks of each of its answers.
    assert max(blocks[3:]) - max(blocks[:3]) < 4 * len(items)


async def test_a_draft_that_is_being_judged_holds_up_no_stop(tmp_path: Path) -> None:
    """Who stops a service ends what it judges aside: the publish fails, and nothing of it is active."""
    config = Config(policies=(POLICIES / "basic",), data=tmp_path / "data", dev=True)
    async with open_service(config) as service:
        await publish_folders(service, config)
        task = asyncio.create_task(service.publishing.publish(large(1), "large", THE_SERVICE))
        await asyncio.sleep(0)  # it has begun; its process, if there is one already, is ended, or never runs on
        service.publishing.close()
        with pytest.raises(DrainingError):
            await task

        assert "large" not in service.revisions.state.snapshots


async def test_a_build_holds_up_no_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who publishes while a server stops is told so before the drain ends; nothing is active, stored or written."""
    config = Config(policies=(POLICIES / "basic",), data=tmp_path / "data", listen="127.0.0.1:0", dev=True)
    order: list[str] = []
    building, stopping = asyncio.Event(), asyncio.Event()
    async with open_service(config) as service, asyncio.timeout(WAIT_SECONDS):
        read, stop = service.revisions.read, service.revisions.stop

        async def reading(files: Mapping[str, bytes], name: str) -> PolicySet:
            order.append("accepted")
            building.set()
            await stopping.wait()
            return await read(files, name)

        def told_to_stop() -> None:
            order.append("stopping")
            stop()
            stopping.set()

        await publish_folders(service, config)
        monkeypatch.setattr(service.revisions, "read", reading)
        monkeypatch.setattr(service.revisions, "stop", told_to_stop)
        kept = sorted(path.name for path in (config.data / "revisions").iterdir())
        size = service.book.size
        server = listening(service, open_door(service, config), config)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{await server.__aenter__()}") as channel:
            call = PolicyServiceStub(channel).UploadPolicySet(uploaded(large(1)))
            call.add_done_callback(lambda _: order.append("answered"))
            await building.wait()
            await server.__aexit__(None, None, None)
            order.append("stopped")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
        left = sorted(path.name for path in (config.data / "revisions").iterdir())
        state, written, happened = service.revisions.state, service.book.size, tuple(order)

    status = status_pb2.Status.FromString(dict(refused.value.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert happened == ("accepted", "stopping", "answered", "stopped")
    assert (refused.value.code(), info.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert "nothing was changed" in (refused.value.details() or "")
    assert "large" not in state.policy_sets
    assert (left, written) == (kept, size)
