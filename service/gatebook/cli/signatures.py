"""`gatebook policy proof | verify`: the signature of a revision, which anybody checks without a server.

A revision is signed by what activated it: its entry names the digest, and stands under a checkpoint that the key of the
book signed. The proof (C2SP tlog-proof@v1) carries the exact bytes of that entry as its extra line; nothing vouches for
these but their hash, which the proof covers.
"""

from __future__ import annotations

from pathlib import Path

import click

from gatebook.audit.entry import decode, from_timestamp
from gatebook.cli.memory import read_key_text
from gatebook.cli.output import ASK_TIMEOUT_SECONDS, NO, channel, errors_told, fail, stdout, target_option
from gatebook.errors import BookCorruptError, VerificationError
from gatebook.policy import bundle
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.merkle import leaf_hash
from gatebook.tlog.proof import Proof, parse_proof, verify_proof
from gatebook.v1 import audit_service_pb2, entry_pb2
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

PAGE_SIZE = 1_000


@click.command()
@click.argument("name")
@click.option("--number", type=click.IntRange(min=0), default=0, help="The revision; 0 means the active one.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the proof into this file.")
@target_option
def proof(name: str, number: int, out: Path | None, target: str) -> None:
    """Prove by which entry a revision of the policy set NAME was activated: a C2SP tlog-proof@v1.

    `gatebook policy verify` checks it against a folder, without a server.
    """
    with channel(target) as opened:
        record = find(PolicyServiceStub(opened), name, number)
        stub = AuditServiceStub(opened)
        # Of several workers the first one keeps what is active, and names its book first.
        books = stub.ListBooks(audit_service_pb2.ListBooksRequest(), timeout=ASK_TIMEOUT_SECONDS).books
        origin = books[0].origin if books else ""
        asked = audit_service_pb2.GetInclusionProofRequest(index=record.index, origin=origin)
        answer = stub.GetInclusionProof(asked, timeout=ASK_TIMEOUT_SECONDS)
        wanted = audit_service_pb2.GetEntryRequest(index=record.index, origin=origin)
        entry = stub.GetEntry(wanted, timeout=ASK_TIMEOUT_SECONDS).record.entry_bytes
    if leaf_hash(entry) != answer.leaf_hash:
        fail("the server sent an entry that is not the one it proves", NO)
    text = Proof(record.index, tuple(answer.hashes), answer.checkpoint.encode(), entry).format()
    if out is None:
        click.echo(text, nl=False)
        return
    out.write_bytes(text)
    told = f"{name} revision {record.revision.number} was activated by entry {record.index}: {out}"
    stdout().print(told, markup=False, soft_wrap=True)


def find(stub: PolicyServiceStub, name: str, number: int) -> pb.RevisionRecord:
    """Returns the record of a revision; ends the command where there is none."""
    token = ""
    while True:
        request = pb.ListRevisionsRequest(policy_set=name, page_size=PAGE_SIZE, page_token=token)
        page = stub.ListRevisions(request, timeout=ASK_TIMEOUT_SECONDS)
        for record in page.records:
            if number in (0, record.revision.number):
                return record
        token = page.next_page_token
        if not token:
            fail(f"policy set `{name}` has no such revision: `gatebook policy list` shows them", NO)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--proof", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--vkey", metavar="KEY|FILE", required=True, help="The verifier key of the book.")
def verify(folder: Path, path: Path, vkey: str) -> None:
    """Check, without a server, that the files in FOLDER are the revision that a proof says was activated."""
    with errors_told():
        files = bundle.read_folder(folder)
        key = VerifierKey.parse(read_key_text(vkey))
        signed = path.read_bytes()
    try:
        entry_bytes = parse_proof(signed).extra
        verify_proof(signed, leaf_hash(entry_bytes), key)
        entry = decode(entry_bytes)
    except (VerificationError, BookCorruptError) as error:
        fail(f"the proof does not hold: {error.message}", NO)
    policy = entry.policy
    if policy.step != entry_pb2.POLICY_STEP_ACTIVATED:
        fail("the proof is of an entry that activated no revision of a policy set", NO)
    if policy.revision.digest != bundle.digest(files):
        fail(f"`{folder}` is another revision: {bundle.digest(files)}, not {policy.revision.digest}", NO)
    time = from_timestamp(entry.entry_time)
    told = f"{policy.policy_set} revision {policy.revision.number} {policy.revision.digest[:12]}"
    approved = f", with {policy.proposal.approvals_count} approvals" if policy.proposal.approvals_count else ""
    stdout().print(
        f"{told} was activated at {time:%Y-%m-%d %H:%M:%S} UTC{approved}, as the book `{key.name}` says",
        markup=False,
        soft_wrap=True,
    )
