"""From bytes to bytes, with everything that is remembered, checks say and write what they would without."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast
from unittest import mock

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.audit_samples import ORIGIN
from tests.property.test_answers import as_message
from tests.property.test_engine_telemetry import DATASETS, SET
from tests.property.test_recall import NOW, SNAPSHOT, SUBJECTS

from gatebook.audit.decision_entry import Decided, encode_decision, people_of
from gatebook.audit.entry import Stamp
from gatebook.audit.people import Person
from gatebook.audit.proving import Prover
from gatebook.audit.recorder import Recorder, Written
from gatebook.authorize import Answer, Question, decide, question_of
from gatebook.compiler.remembered import Remembered
from gatebook.config import Limits
from gatebook.door.caller import Caller, CallerKind
from gatebook.engine.recall import Recall
from gatebook.engine.snapshot import Snapshot, build_snapshot
from gatebook.errors import GatebookError
from gatebook.generations import Generations
from gatebook.policy.bundle import read_folder
from gatebook.policy.directory import Directory
from gatebook.policy.policy_set import load
from gatebook.policy.settings import AttributeSource
from gatebook.revisions.active import Revisions, State
from gatebook.rpc import decode
from gatebook.rpc.checking import Checking
from gatebook.rpc.edge import Call, Edge
from gatebook.rpc.receipts import Receipts
from gatebook.tlog.keys import SigningKey
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.values import Revision

LIMITS = Limits()
BELIEVED = AttributeSource(frozenset(("network", "level", "agent")), frozenset(("level", "country", "team")))
CALLERS = [Caller(id_, CallerKind.LOCAL) for id_ in ("local", "cn:believed", "cn:stranger")]


def variants() -> Iterator[Snapshot]:
    """Yields revisions of two sets, one after the other: who is believed, the rules and the directory change."""
    yield SNAPSHOT
    sources = {"cn:believed": BELIEVED}
    trusting = replace(SET, settings=replace(SET.settings, attribute_sources=sources))
    fewer = replace(trusting, rules=tuple(rule for at, rule in enumerate(SET.rules) if rule.ptype != "p" or at % 3))
    people = Directory("e", {id_: replace(one, groups=one.groups[:1]) for id_, one in SUBJECTS.items() if id_ != "s1"})
    for number, (policy_set, directory) in enumerate(((trusting, SNAPSHOT.directory), (fewer, people)), start=2):
        yield build_snapshot(
            policy_set, Revision("b" * 64, number), directory, Revision("e" * 64, number), mask_master=b"m" * 32
        )
    plain = load(read_folder(Path("policies/basic")), "basic")
    for number in (1, 2):
        yield build_snapshot(plain, Revision("c" * 64, number), None, None, mask_master=b"m" * 32)


SNAPSHOTS = list(variants())


class People(defaultdict[Any, Person]):
    """Everybody, with a key each."""

    def __missing__(self, key: Any) -> Person:  # noqa: ANN401  # a person's id
        """Returns somebody who is new."""
        pseudonym = (repr(key).encode() * 16)[:16]
        return self.setdefault(key, Person(pseudonym, pseudonym, AESGCM(pseudonym)))


PEOPLE = People()


class Book:
    """Stands for the pen of the book: tells the time that it is told, and keeps what is written."""

    def __init__(self) -> None:
        """Begins empty."""
        self.time = NOW
        self.decided: list[Decided] = []
        self.caller = ""

    def now(self) -> datetime:
        """Returns the time."""
        return self.time

    async def record_decisions(self, decided: Sequence[Decided], caller: str) -> list[Written]:
        """Keeps the decisions."""
        self.decided, self.caller = list(decided), caller
        entries = [entry_of(one, self.time, caller) for one in decided]
        return [Written(at, bytes(32), self.time, entry) for at, entry in enumerate(entries)]


class Open:
    """A rim that lets everybody ask everything."""

    def permit(self, call: Call) -> None:
        """Lets the call go on."""

    def permit_asking(self, *_: object) -> None:
        """Lets anybody ask."""

    def items(self, *_: object) -> contextlib.AbstractContextManager[None]:
        """Has room."""
        return contextlib.nullcontext()


def entry_of(one: Decided, now: datetime, caller: str) -> bytes:
    """Returns the entry of a decision."""
    return encode_decision(one, Stamp.of(now, caller, 0), [PEOPLE[i] for i in people_of(one)], ORIGIN)


def clear(entry: bytes) -> entry_pb2.AuditEntry:
    """Returns what stands in clear in an entry, without what is random."""
    message = entry_pb2.AuditEntry.FromString(entry)
    message.ClearField("sealed")
    message.ClearField("salt")
    return message


def fresh(snapshot: Snapshot) -> Snapshot:
    """Returns a snapshot with nothing remembered."""
    return replace(snapshot, recall=Recall(), program=replace(snapshot.program, remembered=Remembered()))


class Server:
    """Checks under revisions that come and go; `asked` asks, and asks again as if nothing had ever been asked."""

    def __init__(self) -> None:
        """Begins with the first revision of each set."""
        self.book = Book()
        self.active = Revisions(cast("Any", None), b"")
        receipts = Receipts(SigningKey.generate(ORIGIN), cast("Prover", None), LIMITS)  # basic ones need no proof
        self.checking = Checking(self.active, cast("Recorder", self.book), receipts, cast("Edge", Open()), LIMITS)
        for snapshot in SNAPSHOTS:
            self.publish(snapshot)

    def publish(self, snapshot: Snapshot) -> None:
        """Makes a revision active."""
        name, state = snapshot.policy_set.name, self.active.state
        self.active.state = State({**state.snapshots, name: snapshot}, {**state.policy_sets, name: snapshot.policy_set})

    def check(self, raw: bytes, call: Call) -> None:
        """Asks one question, and claims that answer and entry are those of a server that remembers nothing."""

        def parts() -> tuple[Any, list[Question | GatebookError]]:
            request = decode_as(pb.CheckAccessRequest, raw)
            return request, [self.question(request, request, "access", call)]

        self.book.decided = []
        told = outcome(lambda: asyncio.run(self.checking.check(call, raw)))
        self.compare(told, parts, pb.CheckAccessResponse, call)

    def batch(self, raw: bytes, call: Call) -> None:
        """Asks a batch, and claims the same of each of its items."""

        def parts() -> tuple[Any, list[Question | GatebookError]]:
            request = decode_as(pb.BatchCheckAccessRequest, raw)
            items = enumerate(request.items)
            return request, [self.question(request, item, f"items[{at}].access", call) for at, item in items]

        self.book.decided = []
        told = outcome(lambda: asyncio.run(self.checking.batch(call, raw)))
        self.compare(told, parts, pb.BatchCheckAccessResponse, call)

    def question(self, request: Any, item: Any, field: str, call: Call) -> Question | GatebookError:  # noqa: ANN401  # of either kind
        """Returns the question, read anew."""
        try:
            for name in ("correlation_id", "request_id", "policy_set"):
                decode.text(getattr(item, name, "") or getattr(request, name, ""), LIMITS.name_bytes_max, name)
            read = decode.access_request(item.access, LIMITS, allow_partial=item.allow_partial, field=field)
            snapshot = fresh(self.active.snapshot(request.policy_set, at_least=request.at_least))
            return question_of(
                snapshot, read, caller=call.caller.id, caller_request_id=request.request_id, trace_id=call.trace_id
            )
        except GatebookError as error:
            return error

    def compare(
        self,
        told: bytes | GatebookError,
        parts: Callable[[], tuple[Any, list[Question | GatebookError]]],
        kind: type[Any],
        call: Call,
    ) -> None:
        """Claims that what was told and written is what follows from the parts of the request."""
        with mock.patch.object(decode, "_enforcers", Generations(2)):
            try:
                request, questions = parts()
            except DecodeError:
                assert isinstance(told, GatebookError)
                return
        if isinstance(told, GatebookError):
            assert all(isinstance(one, GatebookError) for one in questions)
            return
        answer = kind.FromString(told)
        results = answer.results if kind is pb.BatchCheckAccessResponse else [answer]
        assert len(questions) == len(results)
        written = iter(enumerate(self.book.decided))
        for question, result in zip(questions, results, strict=True):
            if isinstance(question, GatebookError):
                assert result.HasField("error")
                continue
            decision = decide(fresh(self.active.snapshot(request.policy_set)), question, self.book.time)
            at, found = next(written)
            assert question.asked == found.asked
            assert decision == found.decision
            expected = Decided(question.asked, decision, found.decision_id)
            entry = entry_of(found, self.book.time, self.book.caller)
            assert clear(entry_of(expected, self.book.time, call.caller.id)) == clear(entry)
            place = Written(at, bytes(32), self.book.time, entry)
            message = as_message(Answer(decision, found.decision_id, place))
            assert message == result.decision
        assert next(written, None) is None


def decode_as(kind: type[Any], raw: bytes) -> Any:  # noqa: ANN401  # a message of that kind
    """Returns the message in the bytes."""
    return kind.FromString(raw)


def outcome(ask: Callable[[], bytes]) -> bytes | GatebookError:
    """Returns what an attempt comes to."""
    try:
        return ask()
    except GatebookError as error:
        return error


STATED = st.sampled_from(
    [
        *[b""] * 8,
        b"",
        *(b'{"level":%b}' % v for v in (b"1", b"1.0", b"true", b'"1"', b"-0.0", b"0", b"1e0", b"null", b"[1]")),
        b'{"level":1,"level":4}',
        b'{"country":"DE","network":"corp"}',
        b'{"network":"corp","country":"DE"}',
        '{"team":"\u00e9"}'.encode(),
        '{"team":"e\u0301"}'.encode(),
        b'{"team":"\\ud800"}',
        b"{}",
        b"[]",
        b"{",
    ]
)
STRUCTS = st.dictionaries(
    st.sampled_from(("level", "country", "network")),
    st.sampled_from((0.0, -0.0, 1.0, True, "1", None, "corp", float("nan"))),
    max_size=2,
)
UNKNOWN_FIELD = b"\xc0\x3e\x01"  # field 1000, a varint


@st.composite
def accesses(draw: st.DrawFn) -> types_pb2.AccessRequest:
    """Draws what is asked, of few names, so that much comes again."""
    dataset = DATASETS[draw(st.sampled_from(("hr.performance_metrics", "ai_usage.token_usage")))]
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(
            type=draw(st.sampled_from(("user", "user", "user", ""))),
            id=draw(st.sampled_from(("s19", "s19", "s19", "s1", "alice"))),
        ),
        action=types_pb2.Action(name=draw(st.sampled_from(("read", "read", "read", "read", "share", "juggle")))),
        resource=types_pb2.Resource(
            id=draw(st.sampled_from((dataset.id, dataset.id, "report:weekly"))),
            columns=draw(st.lists(st.sampled_from(sorted(dataset.columns)[:2]), max_size=2)),
        ),
        purpose=draw(st.sampled_from(("performance_evaluation.review", "cost_management", "subject_access", ""))),
        context_json=draw(STATED),
    )
    if draw(st.booleans()):
        access.row_json = draw(
            st.sampled_from((b'{"subject_id":"s19","tokens_in":1.0}', b'{"subject_id":["s1","s2"]}', b"{}"))
        )
    if draw(st.booleans()):
        access.subject.properties_json = draw(STATED)
    elif draw(st.booleans()):
        access.subject.properties.update(draw(STRUCTS))
    if not draw(st.integers(0, 19)):
        access.row.update(draw(STRUCTS))
    if draw(st.booleans()):
        access.enforcer.supported_obligations.extend(range(draw(st.sampled_from((3, 20, 20)))))  # type: ignore[arg-type]  # any number may be sent
        access.enforcer.supported_masks.extend(range(draw(st.sampled_from((3, 20, 20)))))  # type: ignore[arg-type]  # as above
    if not draw(st.integers(0, 4)):
        access.actor.CopyFrom(types_pb2.Subject(type="user", id=draw(st.sampled_from(("s0", "nobody", "")))))
    return access


def field(tag: int, content: bytes, *, padded: bool) -> bytes:
    """Returns a field of bytes; its length may be a varint that is longer than it need be."""
    size = len(content)
    varint = b""
    while size > 127 or (padded and len(varint) < 4):
        varint, size = varint + bytes((size & 127 | 128,)), size >> 7
    return bytes((tag << 3 | 2,)) + varint + bytes((size,)) + content


@st.composite
def encoded(draw: st.DrawFn, tag: int, rest: st.SearchStrategy[bytes]) -> bytes:
    """Draws a message with what is asked in a field, said in one of the many ways in which bytes can say it."""
    content = draw(accesses()).SerializeToString()
    match draw(st.integers(0, 9)):
        case 0:
            content += UNKNOWN_FIELD
        case 1:  # merged: of what is said twice the last counts, and lists are joined
            content += draw(accesses()).SerializeToString()
        case 2:
            content = types_pb2.AccessRequest(subject=types_pb2.Subject(id="s0")).SerializeToString() + content
        case _:
            pass
    raw = field(tag, content, padded=draw(st.booleans())) + draw(rest)
    if not draw(st.integers(0, 9)):
        raw += field(tag, draw(accesses()).SerializeToString(), padded=False)
    if not draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(raw) - 1))
        raw = raw[:at] + bytes((raw[at] ^ draw(st.sampled_from((1, 2, 8, 128))),)) + raw[at + 1 :]
    return raw


def fields_of(kind: type[Any], **more: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Draws the fields beside what is asked."""
    sets = st.sampled_from((*["telemetry"] * 5, "basic", "basic", "", "none"))
    drawn = st.fixed_dictionaries(
        {"policy_set": sets, **more},
        optional={"request_id": st.sampled_from(("r1", "r2")), "at_least": st.sampled_from((1, 2, 3))},
    )
    return drawn.map(lambda fields: bytes(kind(**fields).SerializeToString()))


PARTIAL = {"allow_partial": st.booleans()}
CHECKS = encoded(3, fields_of(pb.CheckAccessRequest, **PARTIAL))
ITEMS = encoded(2, PARTIAL["allow_partial"].map(lambda p: bytes(pb.CheckItem(allow_partial=p).SerializeToString())))
BATCHES = st.tuples(
    st.lists(ITEMS.map(lambda item: field(3, item, padded=False)), min_size=1, max_size=4),
    fields_of(pb.BatchCheckAccessRequest),
).map(lambda parts: b"".join((*parts[0], *parts[0][:2], parts[1])))
CALLS = st.builds(Call, st.just("CheckAccess"), st.sampled_from(CALLERS), st.sampled_from((b"", bytes(range(16)))))
SERVER = Server()


@settings(max_examples=100)
@given(
    checks=st.lists(CHECKS, min_size=1, max_size=3),
    batches=st.lists(BATCHES, max_size=2),
    calls=st.lists(CALLS, min_size=2, max_size=3),
    published=st.lists(st.integers(0, len(SNAPSHOTS) - 1), min_size=2, max_size=2),
    days=st.lists(st.sampled_from((0, 0, 0, 1, 4_000)), min_size=2, max_size=2),
)
def test_bytes_are_answered_and_written_as_if_nothing_were_remembered(
    checks: list[bytes], batches: list[bytes], calls: list[Call], published: list[int], days: list[int]
) -> None:
    """Whatever the bytes, whoever asks again, whatever was published meanwhile: answer and entry are those of now."""
    for number, day in zip((*published, published[0]), (*days, days[0]), strict=True):
        SERVER.publish(SNAPSHOTS[number])
        SERVER.book.time = NOW + timedelta(days=day)
        for call in (*calls, *calls):
            for raw in checks:
                SERVER.check(raw, call)
            for raw in batches:
                SERVER.batch(raw, call)
