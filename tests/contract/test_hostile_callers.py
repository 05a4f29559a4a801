"""Hostile callers: certificates that prove nothing get nothing but the same refusal."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from tests.callers import CA, UNREACHED, hostile_server
from tests.certificates import CLIENT, DAY, SERVER, SIGNING, authority, leaf

from gatebook.door.caller import LOCAL, Caller, CallerKind
from gatebook.rpc.inner import name_caller

CALLERS = """\
certificates:
  trust_domains: [corp.example]
  common_names: [nightly-report]
"""
REFUSAL = "no valid credentials: call with a client certificate or a bearer token that this server trusts"
OTHER_CA = authority("another ca")
CORP = "spiffe://corp.example/"
NO_SPIFFE_ID = "the URI in the certificate is no SPIFFE id of a workload"
NO_COMMON_NAME = "the common name of the certificate is not well formed"
SEVERAL_URIS = "the certificate has several URIs, and an X.509-SVID has exactly one"
OTHER_NAME = (x509.SubjectAlternativeName([x509.DNSName("spiffe://corp.example/trino")]), False)

GOOD = {
    "spiffe id": (leaf(CA, uris=[f"{CORP}ns/data/sa/trino"]), f"{CORP}ns/data/sa/trino"),
    "spiffe id beside a common name": (leaf(CA, uris=[f"{CORP}a"], common_names=["root"]), f"{CORP}a"),
    "common name": (leaf(CA, common_names=["nightly-report"]), "cn:nightly-report"),
    "common name, no purposes": (leaf(CA, common_names=["nightly-report"], purposes=()), "cn:nightly-report"),
    "both purposes": (leaf(CA, uris=[f"{CORP}a"], purposes=(SERVER, CLIENT)), f"{CORP}a"),
}
BAD = {
    "none": (None, UNREACHED),
    "of another ca": (leaf(OTHER_CA, uris=[f"{CORP}a"]), UNREACHED),
    "of another ca of the same name": (leaf(authority(), uris=[f"{CORP}a"]), UNREACHED),
    "expired": (leaf(CA, uris=[f"{CORP}a"], begins=-2 * DAY, ends=-DAY), UNREACHED),
    "not yet valid": (leaf(CA, uris=[f"{CORP}a"], begins=DAY, ends=2 * DAY), UNREACHED),
    "of a server": (leaf(CA, uris=[f"{CORP}a"], purposes=(SERVER,)), UNREACHED),
    "the ca itself": (CA, "the certificate is that of an authority, not of a client"),
    "an authority": (
        leaf(CA, uris=[f"{CORP}a"], is_ca=True),
        "the certificate is that of an authority, not of a client",
    ),
    "signs others": (
        leaf(CA, uris=[f"{CORP}a"], extensions=[(SIGNING, True)]),
        "the certificate may sign others, so it is not that of a client",
    ),
    "another trust domain": (
        leaf(CA, uris=["spiffe://evil.example/a"]),
        "the trust domain of the certificate is not listed",
    ),
    "a trust domain as prefix": (
        leaf(CA, uris=["spiffe://corp.example.evil/a"]),
        "the trust domain of the certificate is not listed",
    ),
    "two spiffe ids": (leaf(CA, uris=[f"{CORP}a", f"{CORP}b"]), SEVERAL_URIS),
    "a spiffe id and an address": (leaf(CA, uris=[f"{CORP}a", "https://corp.example/"]), SEVERAL_URIS),
    "an address, with a good common name": (
        leaf(CA, uris=["https://corp.example/a"], common_names=["nightly-report"]),
        NO_SPIFFE_ID,
    ),
    "malformed, with a good common name": (leaf(CA, uris=[CORP], common_names=["nightly-report"]), NO_SPIFFE_ID),
    "no path": (leaf(CA, uris=["spiffe://corp.example"]), NO_SPIFFE_ID),
    "empty segment": (leaf(CA, uris=[f"{CORP}a//b"]), NO_SPIFFE_ID),
    "slash at the end": (leaf(CA, uris=[f"{CORP}a/"]), NO_SPIFFE_ID),
    "dot segment": (leaf(CA, uris=[f"{CORP}a/../b"]), NO_SPIFFE_ID),
    "percent": (leaf(CA, uris=[f"{CORP}a%2fb"]), NO_SPIFFE_ID),
    "query": (leaf(CA, uris=[f"{CORP}a?b"]), NO_SPIFFE_ID),
    "fragment": (leaf(CA, uris=[f"{CORP}a#b"]), NO_SPIFFE_ID),
    "user": (leaf(CA, uris=["spiffe://me@corp.example/a"]), NO_SPIFFE_ID),
    "port": (leaf(CA, uris=["spiffe://corp.example:1/a"]), NO_SPIFFE_ID),
    "capitals": (leaf(CA, uris=["SPIFFE://corp.example/a"]), NO_SPIFFE_ID),
    "line feed": (leaf(CA, uris=[f"{CORP}a\n"]), NO_SPIFFE_ID),
    "nul": (leaf(CA, uris=[f"{CORP}a\0b"]), NO_SPIFFE_ID),
    "too long": (leaf(CA, uris=[CORP + "a" * 300]), "the name in the certificate is over 256 bytes"),
    "spiffe id as a host": (leaf(CA, extensions=[OTHER_NAME]), "the certificate has no common name, or several"),
    "no name at all": (leaf(CA), "the certificate has no common name, or several"),
    "two common names": (
        leaf(CA, common_names=["nightly-report", "nightly-report"]),
        "the certificate has no common name, or several",
    ),
    "another common name": (leaf(CA, common_names=["root"]), "the common name of the certificate is not listed"),
    "common name with nul": (leaf(CA, common_names=["nightly-report\0.evil"]), NO_COMMON_NAME),
    "common name with line feed": (leaf(CA, common_names=["nightly-report\n"]), NO_COMMON_NAME),
    "common name with spaces": (leaf(CA, common_names=[" nightly-report"]), NO_COMMON_NAME),
    "common name of another alphabet": (leaf(CA, common_names=["n\u0456ghtly-report"]), NO_COMMON_NAME),
    "common name as a spiffe id": (
        leaf(CA, common_names=[f"{CORP}a"]),
        "the common name of the certificate is not listed",
    ),
}


async def test_a_good_certificate_is_its_caller(tmp_path: Path) -> None:
    """A certificate of the CA is the caller of its SPIFFE id, else of its listed common name."""
    async with hostile_server(tmp_path, CALLERS) as server:
        told = {name: (await server.tell(client)).identity for name, (client, _) in GOOD.items()}

    assert told == {name: identity for name, (_, identity) in GOOD.items()}


async def test_a_bad_certificate_is_nobody(tmp_path: Path) -> None:
    """Each is refused for its own cause, which the log tells, and all are told the same, byte for byte."""
    async with hostile_server(tmp_path, CALLERS) as server:
        told = {name: await server.tell(client) for name, (client, _) in BAD.items()}

    assert {name: answer.identity for name, answer in told.items()} == {name: cause for name, (_, cause) in BAD.items()}
    answered = {(t.code, t.message, t.details) for t in told.values() if t.cause != UNREACHED}
    assert {(code, message) for code, message, _ in answered} == {("UNAUTHENTICATED", REFUSAL)}
    assert len(answered) == 1
    assert {t.caller for t in told.values()} == {"-"}


async def test_a_chain_ends_at_the_ca(tmp_path: Path) -> None:
    """A certificate of a CA that the CA signed counts, and that of a mere caller's signs nobody."""
    middle = leaf(CA, common_names=["middle"], purposes=(), is_ca=True)
    caller = leaf(CA, common_names=["nightly-report"])
    async with hostile_server(tmp_path, CALLERS) as server:
        through_ca = await server.tell(leaf(middle, uris=[f"{CORP}a"]), chain=middle.pem)
        through_caller = await server.tell(leaf(caller, uris=[f"{CORP}a"]), chain=caller.pem)

    assert (through_ca.identity, through_caller.identity) == (f"{CORP}a", UNREACHED)


async def test_a_caller_that_names_itself_as_workers_do_is_who_it_proves_to_be(tmp_path: Path) -> None:
    """The metadata by which workers name callers to each other says nothing on the port of callers."""
    forged = [name_caller(Caller(f"{CORP}admin", CallerKind.CERTIFICATE)), name_caller(LOCAL)]
    async with hostile_server(tmp_path, CALLERS) as server:
        known = await server.tell(leaf(CA, uris=[f"{CORP}a"]), headers=forged)
        stranger = await server.tell(leaf(CA, uris=["spiffe://other.example/a"]), headers=forged)

    assert (f"{CORP}a", "the trust domain of the certificate is not listed") == (known.identity, stranger.identity)


async def test_a_connection_does_not_outlive_its_certificate(tmp_path: Path) -> None:
    """A call on an open connection is refused as soon as the certificate has expired."""
    client = leaf(CA, uris=[f"{CORP}a"])
    async with hostile_server(tmp_path, CALLERS) as server, server.channel(client) as channel:
        before = await server.tell_on(channel)
        server.authentication.now = client.certificate.not_valid_after_utc.timestamp
        after = await server.tell_on(channel)

    assert (before.identity, after.identity) == (f"{CORP}a", "the certificate has expired")
    assert after.code == "UNAUTHENTICATED"


async def test_every_certificate_of_the_ca_counts_where_that_is_said(tmp_path: Path) -> None:
    """A star lists them all."""
    stars = "certificates:\n  trust_domains: ['*']\n  common_names: ['*']\n"
    async with hostile_server(tmp_path, stars) as server:
        domain = await server.tell(leaf(CA, uris=["spiffe://any.example/a"]))
        common = await server.tell(leaf(CA, common_names=["anybody"]))

    assert (domain.identity, common.identity) == ("spiffe://any.example/a", "cn:anybody")
