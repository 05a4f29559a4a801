"""Hostile tokens: what does not prove who calls gets nothing but the same refusal, whatever else was sent."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.callers import CA, Hostile, Told, hostile_server
from tests.certificates import leaf
from tests.tokens import AUDIENCE, ISSUER, SigningKey, by_hand, claims_with, key_set

from gatebook.door import jwks
from gatebook.door.authentication import Authentication
from gatebook.door.caller import LOCAL, Caller, Credentials
from gatebook.v1 import access_service_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub

REFUSAL = "no valid credentials: call with a client certificate or a bearer token that this server trusts"
CALLERS = f"""\
certificates:
  trust_domains: [corp.example]
issuers:
  corp:
    issuer: {ISSUER}
    audiences: [{AUDIENCE}, reports]
    algorithms: [RS256, PS256, ES256, ES384, EdDSA]
    jwks: keys.json
    required_claims: {{tenant: corp, email_verified: true}}
    attributes: {{team: team}}
    groups: groups
    subject: {{type: employee, claim: employee_id}}
  robots:
    issuer: https://robots.example
    audiences: [{AUDIENCE}]
    algorithms: [ES256]
    types: [at+jwt]
    jwks: robots.json
"""
RSA = SigningKey("rsa", "RS256")
PSS = SigningKey("pss", "PS256")
EC = SigningKey("ec", "ES256")
EC384 = SigningKey("ec384", "ES384")
ED = SigningKey("ed", "EdDSA")
ROBOT = SigningKey("robot", "ES256")
THIEF = SigningKey("ec", "ES256")
ANY_RSA = SigningKey("any-rsa", "RS256")
WRONG_CURVE = SigningKey("curve", "ES384")
REQUIRED: dict[str, Any] = {"tenant": "corp", "email_verified": True}
NO_JWT = "the token is no JWT"
NO_KEY = "the key that the token names is not one of `corp` for its algorithm"
NO_SIGNATURE = "the signature of the token is not that of the key"
NO_ALGORITHM = "the algorithm of the token is not one of `corp`"
LACKS = "the token lacks one of `exp`, `iat`, `sub`, `aud`, `iss`"
NOT_YET = "the token is not valid yet"
TOO_OLD = "the token has expired, or is too old"
NO_SUBJECT = "sub in the token is not well formed"
NO_CLAIM = "the token lacks a claim that `corp` requires"
NO_VALUE = "a claim of the token is no value, or no list of texts"
CERTIFICATE = leaf(CA, uris=["spiffe://corp.example/trino"])
OTHER_CERTIFICATE = leaf(CA, uris=["spiffe://corp.example/thief"])


def good(key: SigningKey = EC, header: dict[str, object] | None = None, **claims: object) -> str:
    """Makes a token that counts, but for what differs."""
    return key.token(header, **{**REQUIRED, **claims})


def bearer(token: str) -> list[tuple[str, str]]:
    """Returns the headers of a call with a token."""
    return [("authorization", f"Bearer {token}")]


def bound_to(der: bytes) -> dict[str, str]:
    """Returns the claim that binds a token to a certificate."""
    return {"x5t#S256": base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()}


def signed_with_the_public_key() -> str:
    """Signs with HS256 and a shared secret that is the issuer's public key: the oldest trick."""
    secret = RSA.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    unsigned = by_hand({"alg": "HS256", "typ": "JWT", "kid": "rsa"}, claims_with(**REQUIRED)).rpartition(".")[0]
    signature = hmac.digest(secret, unsigned.encode(), "sha256")
    return f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


NOW = int(time.time())
"""When the tokens below were made, and when they are tried."""
USUAL = {"alg": "ES256", "typ": "JWT", "kid": "ec"}
GOOD = {
    "es256": (good(), "corp:farah"),
    "es384": (good(EC384), "corp:farah"),
    "rs256": (good(RSA), "corp:farah"),
    "ps256": (good(PSS), "corp:farah"),
    "ed25519": (good(ED), "corp:farah"),
    "no type": (good(header={"typ": None}), "corp:farah"),
    "access token": (good(header={"typ": "at+jwt"}), "corp:farah"),
    "access token, written out": (good(header={"typ": "application/AT+JWT"}), "corp:farah"),
    "one audience of several": (good(aud=["other", "reports"]), "corp:farah"),
    "expired within the skew": (good(exp=NOW - 5), "corp:farah"),
    "another issuer": (
        ROBOT.token({"typ": "at+jwt"}, iss="https://robots.example", sub="sweeper"),
        "robots:sweeper",
    ),
    "a key of its own in the header is not looked at": (good(header={"jwk": THIEF.jwk()}), "corp:farah"),
}
BAD = {
    "empty": ("", NO_JWT),
    "one part": ("farah", NO_JWT),
    "four parts": (f"{good()}.AAAA", NO_JWT),
    "nonsense": ("!.!.!", NO_JWT),
    "spaces before": (f"  {good()}", NO_JWT),
    "two tokens": (f"{good()}, {good()}", NO_JWT),
    "huge": (good(padding="x" * 9_000), "the token is over 8,192 bytes"),
    "deep": (by_hand(USUAL, 0).replace(".MA.", "." + "W1tb" * 1_500 + "."), NO_JWT),
    "header is a list": (by_hand([1], claims_with()), NO_JWT),
    "claims are a list": (by_hand(USUAL, [1]), NO_JWT),
    "nested token": (by_hand({**USUAL, "cty": "JWT"}, good()), NO_JWT),
    "encrypted": (
        by_hand({**USUAL, "enc": "A128GCM"}, claims_with()),
        "the header of the token asks for what is not known here",
    ),
    "critical header": (good(header={"crit": ["exp"]}), NO_JWT),
    "alg none": (by_hand({"alg": "none", "kid": "ec"}, claims_with(**REQUIRED)), NO_ALGORITHM),
    "alg None": (by_hand({"alg": "None", "kid": "ec"}, claims_with(**REQUIRED)), NO_ALGORITHM),
    "alg missing": (by_hand({"kid": "ec"}, claims_with(**REQUIRED)), NO_ALGORITHM),
    "alg is a list": (by_hand({"alg": ["ES256"], "kid": "ec"}, claims_with(**REQUIRED)), NO_ALGORITHM),
    "hs256 with the public key": (signed_with_the_public_key(), NO_ALGORITHM),
    "an algorithm that is not listed": (SigningKey("ec512", "ES512").token(**REQUIRED), NO_ALGORITHM),
    "no signature": (by_hand(USUAL, claims_with(**REQUIRED)), NO_SIGNATURE),
    "signature of another token": (f"{good(sub='root').rpartition('.')[0]}.{good().rpartition('.')[2]}", NO_SIGNATURE),
    "claims exchanged": (
        ".".join((good().split(".")[0], good(sub="root").split(".")[1], good().split(".")[2])),
        NO_SIGNATURE,
    ),
    "another key under the same kid": (good(THIEF), NO_SIGNATURE),
    "its own key in the header": (good(THIEF, {"jwk": THIEF.jwk()}), NO_SIGNATURE),
    "its own address of keys": (good(THIEF, {"jku": "http://127.0.0.1:9/keys"}), NO_SIGNATURE),
    "its own chain": (good(THIEF, {"x5c": ["MIIB"], "x5u": "http://127.0.0.1:9/x"}), NO_SIGNATURE),
    "unknown kid": (SigningKey("gone", "ES256").token(**REQUIRED), NO_KEY),
    "kid of another key": (good(header={"kid": "rsa"}), NO_KEY),
    "kid of another curve": (good(header={"kid": "curve"}), NO_KEY),
    "kid of the other issuer": (ROBOT.token(**REQUIRED), NO_KEY),
    "no kid": (good(header={"kid": None}), "the token names no key"),
    "kid is a path": (good(header={"kid": "../../dev/null"}), NO_KEY),
    "an algorithm that the key is not for": (
        by_hand({"alg": "PS256", "kid": "rsa"}, claims_with(**REQUIRED), b"x" * 256),
        NO_KEY,
    ),
    "a key for encryption": (SigningKey("encryption", "ES256").token(**REQUIRED), NO_KEY),
    "a weak key": (by_hand({"alg": "RS256", "kid": "weak"}, claims_with(**REQUIRED), b"x" * 128), NO_KEY),
    "a type for something else": (good(header={"typ": "logout+jwt"}), "the type of the token is not one of `corp`"),
    "a type that the issuer does not use": (
        ROBOT.token(iss="https://robots.example"),
        "the type of the token is not one of `robots`",
    ),
    "another issuer": (good(iss="https://evil.example"), "the issuer of the token is not listed"),
    "issuer with a slash": (good(iss=f"{ISSUER}/"), "the issuer of the token is not listed"),
    "issuer in capitals": (good(iss=ISSUER.upper()), "the issuer of the token is not listed"),
    "issuer is a list": (by_hand(USUAL, {**claims_with(), "iss": [ISSUER]}), "the issuer of the token is not listed"),
    "no issuer": (good(iss=None), "the issuer of the token is not listed"),
    "the other issuer's name, own key": (
        good(iss="https://robots.example", header={"typ": "at+jwt"}),
        "the key that the token names is not one of `robots` for its algorithm",
    ),
    "another audience": (good(aud="billing"), "the token is for another audience"),
    "audience in part": (good(aud="gatebook-test"), "the token is for another audience"),
    "no audience": (good(aud=None), LACKS),
    "no audience in the list": (good(aud=[]), LACKS),
    "expired": (good(exp=NOW - 3_600), TOO_OLD),
    "too old": (good(iat=NOW - 90_000), TOO_OLD),
    "not yet valid": (good(nbf=NOW + 3_600), NOT_YET),
    "issued in the future": (good(iat=NOW + 3_600), NOT_YET),
    "no expiry": (good(exp=None), LACKS),
    "no time of issue": (good(iat=None), LACKS),
    "expiry is no number": (good(exp=float("nan")), "`exp` of the token is no time"),
    "issued before all time": (good(iat=float("-inf")), "`iat` of the token is no time"),
    "expiry is true": (good(exp=True), "`exp` of the token is no time"),
    "expiry is text": (good(exp=str(NOW + 60)), "`exp` of the token is no time"),
    "expiry is endless": (good(exp=10**400), "`exp` of the token is no time"),
    "no subject": (good(sub=None), LACKS),
    "empty subject": (good(sub=""), NO_SUBJECT),
    "long subject": (good(sub="x" * 300), "the id of the caller is over 256 bytes"),
    "subject with line feed": (good(sub="farah\ncorp:root"), NO_SUBJECT),
    "subject with nul": (good(sub="farah\0"), NO_SUBJECT),
    "subject of another alphabet": (good(sub="f\u0430rah"), NO_SUBJECT),
    "subject with comma": (good(sub="farah,root"), NO_SUBJECT),
    "subject is a number": (by_hand(USUAL, claims_with(sub=7)), NO_SIGNATURE),
    "without a required claim": (good(tenant=None), NO_CLAIM),
    "with another value": (good(tenant="evil"), NO_CLAIM),
    "with no value": (good(email_verified=False), NO_CLAIM),
    "groups are a mapping": (good(groups={"admins": True}), "a claim of the token is no value, or too long"),
    "groups are numbers": (good(groups=[1]), NO_VALUE),
    "too many groups": (good(groups=[str(n) for n in range(300)]), NO_VALUE),
    "bound in another way": (good(cnf={"jkt": "x"}), "the token is bound in a way that is not known here"),
    "bound to nothing": (good(cnf={}), "the token is bound in a way that is not known here"),
    "bound to a certificate, brought without": (
        good(cnf=bound_to(b"somebody's")),
        "the token is bound to another certificate",
    ),
}
HEADERS = {
    "two tokens": ([*bearer(good()), *bearer(good())], "there are several authorization headers"),
    "a token and a password": (
        [*bearer(good()), ("authorization", "Basic eDp5")],
        "there are several authorization headers",
    ),
    "a password": ([("authorization", "Basic eDp5")], "the authorization is not of the scheme Bearer"),
    "empty": ([("authorization", "")], "the authorization is not of the scheme Bearer"),
    "no scheme": ([("authorization", good())], "the authorization is not of the scheme Bearer"),
    "no space": ([("authorization", f"Bearer{good()}")], "the authorization is not of the scheme Bearer"),
    "small letters": ([("authorization", f"bearer {good()}")], "corp:farah"),
    "capitals": ([("authorization", f"BEARER {good()}")], "corp:farah"),
    "nothing": ([], "neither a certificate nor a token"),
    "another header": (
        [("x-forwarded-client-cert", "URI=spiffe://corp.example/a")],
        "neither a certificate nor a token",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the key sets of both issuers."""
    weak = {"kty": "RSA", "kid": "weak", "n": "AQAB" * 42, "e": "AQAB"}
    secret = {"kty": "oct", "kid": "secret", "k": "AAAA"}
    encryption = SigningKey("encryption", "ES256").jwk(use="enc")
    keys = (RSA, PSS, EC, EC384, ED, ANY_RSA, WRONG_CURVE, weak, secret, encryption, {"kty": "new", "kid": "new"})
    (tmp_path / "keys.json").write_text(key_set(*keys))
    (tmp_path / "robots.json").write_text(key_set(ROBOT))
    return tmp_path


async def test_a_good_token_is_its_caller(folder: Path) -> None:
    """A token of a listed issuer, with each algorithm, is the caller of its issuer and subject, each time."""
    async with hostile_server(folder, CALLERS, tokens=True) as server, server.channel() as channel:
        server.authentication.now = lambda: float(NOW)
        told = [
            {name: (await server.tell_on(channel, bearer(token))).identity for name, (token, _) in GOOD.items()}
            for _ in range(2)
        ]

    assert told == [{name: identity for name, (_, identity) in GOOD.items()}] * 2


async def test_a_bad_token_is_nobody(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is refused for its own cause, and told the same, byte for byte; the log has the cause and no token."""
    expected = {name: cause for name, (_, cause) in BAD.items()}
    async with hostile_server(folder, CALLERS, tokens=True) as server, server.channel() as channel:
        server.authentication.now = lambda: float(NOW)
        told = {name: await server.tell_on(channel, bearer(t)) for name, (t, _) in BAD.items()}

    logged = capsys.readouterr().out
    assert NO_SIGNATURE in logged
    assert not [
        name for name, (token, _) in BAD.items() for part in token.split(".") if len(part) > 8 and part in logged
    ]
    assert {name: answer.identity for name, answer in told.items()} == expected
    require_same_refusal(told)


async def test_a_header_that_is_no_token_is_nobody(folder: Path) -> None:
    """Exactly one header of the scheme Bearer counts, in whatever letters; headers of proxies do not."""
    async with hostile_server(folder, CALLERS, tokens=True) as server, server.channel() as channel:
        server.authentication.now = lambda: float(NOW)
        told = {name: await server.tell_on(channel, headers) for name, (headers, _) in HEADERS.items()}

    assert {name: answer.identity for name, answer in told.items()} == {
        n: identity for n, (_, identity) in HEADERS.items()
    }
    require_same_refusal({name: answer for name, answer in told.items() if answer.caller == "-"})


def require_same_refusal(told: dict[str, Told]) -> None:
    """Requires one and the same answer for all."""
    assert {answer.caller for answer in told.values()} == {"-"}
    answered = {(answer.code, answer.message, answer.details) for answer in told.values()}
    assert {(code, message) for code, message, _ in answered} == {("UNAUTHENTICATED", REFUSAL)}
    assert len(answered) == 1


async def test_plain_text_takes_tokens_and_falls_back_to_nothing(folder: Path) -> None:
    """On loopback who sends nothing is `local`, who sends a token is its caller, and who sends a bad one is nobody."""
    async with hostile_server(folder, CALLERS, plain=True) as server:
        told = [
            (await server.tell(headers=headers)).identity
            for headers in ([], bearer(good()), bearer(good(THIEF)), [("authorization", "Basic eDp5")])
        ]

    assert told == ["local", "corp:farah", NO_SIGNATURE, "the authorization is not of the scheme Bearer"]


async def test_a_token_is_refused_where_no_issuer_is_listed(tmp_path: Path) -> None:
    """A server without issuers takes no token, not even beside a good certificate."""
    only_certificates = CALLERS.partition("issuers:")[0]
    async with hostile_server(tmp_path, only_certificates) as server:
        told = await server.tell(CERTIFICATE, headers=bearer(good()))

    assert told.identity == "no issuer of tokens is listed"


async def test_a_token_and_a_certificate_must_both_count(folder: Path) -> None:
    """With both the token says who calls; a bad one of either is refused, and a stolen token that is bound, too."""
    bound = good(cnf=bound_to(CERTIFICATE.certificate.public_bytes(Encoding.DER)))
    async with hostile_server(folder, CALLERS) as server:
        told = [
            (await server.tell(certificate, headers=headers)).identity
            for certificate, headers in (
                (CERTIFICATE, []),
                (CERTIFICATE, bearer(good())),
                (CERTIFICATE, bearer(good(THIEF))),
                (leaf(CA, uris=["spiffe://evil.example/a"]), bearer(good())),
                (CERTIFICATE, bearer(bound)),
                (OTHER_CERTIFICATE, bearer(bound)),
                (CERTIFICATE, bearer(bound)),
            )
        ]

    assert told == [
        "spiffe://corp.example/trino",
        "corp:farah",
        NO_SIGNATURE,
        "the trust domain of the certificate is not listed",
        "corp:farah",
        "the token is bound to another certificate",
        "corp:farah",
    ]


async def test_what_a_token_says_of_its_caller(folder: Path) -> None:
    """Only the claims that the file names become attributes, and the subject is the one that it names."""
    token = good(team="red", groups=["a", "b"], employee_id="e-7", role="admin", subject_id="root", kind="local")
    seen: list[Caller] = []
    async with hostile_server(folder, CALLERS, plain=True) as server:
        seen.append(await server.authentication.identify(Credentials(authorization=(f"Bearer {token}",))))
        seen.append(await server.authentication.identify(Credentials(authorization=(f"Bearer {good()}",))))

    subject = seen[0].subject
    assert dict(seen[0].attributes) == {"team": "red", "groups": ["a", "b"]}
    assert subject is not None
    assert (subject.type, subject.id) == ("employee", "e-7")
    assert (dict(seen[1].attributes), seen[1].subject) == ({"groups": []}, None)


async def wait_for_keys(server: Hostile, before: object) -> None:
    """Waits until the first issuer has other keys than before."""
    for _ in range(2_000):
        if keys_of(server) is not before:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the keys never changed")


def keys_of(server: Hostile) -> object:
    """Returns the keys of the first issuer."""
    return server.authentication._sources[0].keys


async def test_a_key_that_was_taken_out_counts_no_longer(folder: Path) -> None:
    """A changed file is seen: a token of a former key is refused, also one that was known, and a new key counts."""
    new = SigningKey("new", "ES256")
    async with hostile_server(folder, CALLERS, tokens=True) as server, server.channel() as channel:
        old_token, new_token = bearer(good()), bearer(good(new))
        before = [(await server.tell_on(channel, token)).identity for token in (old_token, new_token)]
        known = keys_of(server)
        (folder / "keys.json").write_text(key_set(new))
        await wait_for_keys(server, known)
        after = [(await server.tell_on(channel, token)).identity for token in (old_token, new_token)]

    assert (before, after) == (["corp:farah", NO_KEY], [NO_KEY, "corp:farah"])


@pytest.mark.parametrize("content", ["", "{", '{"keys": []}', '{"keys": {}}', "[" * 100_000])
async def test_a_malformed_key_set_changes_nothing(folder: Path, content: str) -> None:
    """What is no key set is not taken; the keys before it count until the next good one."""
    async with hostile_server(folder, CALLERS, tokens=True) as server, server.channel() as channel:
        before = keys_of(server)
        (folder / "keys.json").write_text(content)
        await server.authentication._sources[0].look()
        told = (await server.tell_on(channel, bearer(good()))).identity
        kept = keys_of(server)
        (folder / "keys.json").write_text(key_set(EC))
        await server.authentication._sources[0].look()
        taken = keys_of(server)

    assert told == "corp:farah"
    assert kept is before is not taken


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS1", ["ES256"]])
async def test_a_key_for_no_algorithm_is_passed_over(folder: Path, algorithm: object) -> None:
    """A set with a key for what is no signature counts for its other keys, and does not end the reading of sets."""
    async with hostile_server(folder, CALLERS, tokens=True) as server, server.channel() as channel:
        strange = {**EC.jwk(), "kid": "strange", "alg": algorithm}
        listed = json.loads(key_set(EC))["keys"]
        (folder / "keys.json").write_text(json.dumps({"keys": [strange, *listed]}))
        await server.authentication._sources[0].look()
        taken = keys_of(server)
        told = (await server.tell_on(channel, bearer(good()))).identity

    assert isinstance(taken, dict)
    assert {"ec"} == taken.keys()
    assert told == "corp:farah"


async def test_keys_that_nobody_confirms_grow_too_old(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without their issuer the last keys count for a while, and then nobody gets in, known or not."""
    async with hostile_server(folder, CALLERS, tokens=True) as server, server.channel() as channel:
        (folder / "keys.json").unlink()
        await server.authentication._sources[0].look()
        before = (await server.tell_on(channel, bearer(good()))).identity
        monkeypatch.setattr(jwks, "KEYS_SECONDS_MAX", 0.0)
        after = (await server.tell_on(channel, bearer(good()))).identity

    assert (before, after) == ("corp:farah", "the keys of `corp` cannot be had")


class Published:
    """What an issuer's address answers."""

    def __init__(self, content: str) -> None:
        """Takes the first answer."""
        self.content = content.encode()
        self.status = 200
        self.asked = 0
        self.elsewhere = ""


@contextmanager
def publishing(content: str) -> Iterator[tuple[str, Published]]:
    """Publishes key sets at an address of this machine."""
    published = Published(content)

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            published.asked += 1
            self.send_response(published.status)
            if published.elsewhere:
                self.send_header("Location", published.elsewhere)
            self.end_headers()
            self.wfile.write(published.content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_address[1]}/keys", published
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


async def test_a_new_key_is_fetched_when_a_token_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of a new key counts at once, but strangers cannot make the server ask more than once per interval."""
    new = SigningKey("new", "ES256")
    with publishing(key_set(EC)) as (address, published):
        callers = CALLERS.replace("jwks: keys.json", f"jwks: {address}")
        async with hostile_server(folder, callers, tokens=True) as server, server.channel() as channel:
            first = published.asked
            for number in range(20):
                await server.tell_on(channel, bearer(SigningKey(f"kid-{number}", "ES256").token()))
            hammered = published.asked
            published.content = key_set(new).encode()
            monkeypatch.setattr(jwks, "LOOK_AGAIN_SECONDS", 0.0)
            told = [(await server.tell_on(channel, bearer(good(key)))).identity for key in (new, EC)]

    assert (first, hammered) == (1, 1)
    assert told == ["corp:farah", NO_KEY]


@pytest.mark.parametrize("trouble", ["elsewhere", "an error", "too much"])
async def test_an_address_that_does_not_answer_as_it_should_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """A redirect, an error and an answer without end are not taken; the keys before count on."""
    with publishing(key_set(EC)) as (address, published), publishing(key_set(THIEF)) as (thief, stolen):
        callers = CALLERS.replace("jwks: keys.json", f"jwks: {address}")
        async with hostile_server(folder, callers, tokens=True) as server, server.channel() as channel:
            match trouble:
                case "elsewhere":
                    published.status, published.elsewhere = 302, thief
                case "an error":
                    published.status, published.content = 500, key_set(THIEF).encode()
                case _:
                    published.content = (key_set(THIEF)[:-1] + " " * 300_000 + "}").encode()
            monkeypatch.setattr(jwks, "LOOK_AGAIN_SECONDS", 0.0)
            await server.authentication._sources[0].look()
            told = [(await server.tell_on(channel, bearer(good(key)))).identity for key in (EC, THIEF)]

    assert published.asked >= 2
    assert stolen.asked == 0
    assert told == ["corp:farah", NO_SIGNATURE]


async def test_a_server_starts_without_an_issuer_that_does_not_answer(folder: Path) -> None:
    """Whose address does not answer at the start gets nobody in, and the other issuer's callers all the same."""
    callers = CALLERS.replace("jwks: keys.json", "jwks: http://127.0.0.1:9/keys")
    async with hostile_server(folder, callers, tokens=True) as server, server.channel() as channel:
        server.authentication.now = lambda: float(NOW)
        told = [(await server.tell_on(channel, bearer(GOOD[name][0]))).identity for name in ("es256", "another issuer")]

    assert told == ["the keys of `corp` cannot be had", "robots:sweeper"]


async def answers_until_refused(channel: grpc.aio.Channel) -> tuple[int, str]:
    """Asks in one stream until it is ended; returns how many answers came, and why it ended."""
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(id="alice"),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id="report:weekly"),
    )
    question = access_service_pb2.StreamCheckAccessRequest(items=[access_service_pb2.CheckItem(access=access)])
    stream = AccessServiceStub(channel).StreamCheckAccess(timeout=60)
    answered = 0
    try:
        while True:
            await stream.write(question)
            answered += isinstance(await stream.read(), access_service_pb2.StreamCheckAccessResponse)
    except grpc.aio.AioRpcError as error:
        return answered, f"{error.code().name}: {error.details()}"


async def test_a_stream_does_not_outlive_its_credentials(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream answers until the credentials that opened it run out, and then ends as a stranger's would."""
    caller = msgspec.structs.replace(LOCAL, valid_until=time.time() + 2)

    async def identify(*_: object) -> Caller:
        return caller

    monkeypatch.setattr(Authentication, "identify", identify)
    async with hostile_server(folder, CALLERS, plain=True) as server, server.channel() as channel:
        answered, ended = await answers_until_refused(channel)

    assert answered > 0
    assert ended == f"UNAUTHENTICATED: {REFUSAL}"
