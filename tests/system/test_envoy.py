"""A real Envoy before a real upstream: what Gatebook denies does not get through, and what gets through is in the book.

Runs docs/deploy/envoy/envoy.yaml with other ports and files. Needs `make build/envoy/.ready`.
"""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import json
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from tests.certificates import Pair, authority, leaf, server_of
from tests.scrapes import Scrape, scrape
from tests.serving import POLICIES, ROOT, RunningServer, gatebook, serving

from gatebook.v1 import entry_pb2, types_pb2

ENVOY = ROOT / "build" / "envoy" / "bin" / "envoy"
CONFIG = ROOT / "docs" / "deploy" / "envoy" / "envoy.yaml"
START_SECONDS = 60
TRINO, INTRUDER = "spiffe://corp.example/trino", "spiffe://corp.example/intruder"
FORGED = {"x-gatebook-decision": "forged", "x-gatebook-decision-id": "forged", "x-gatebook-receipt": "forged"}
REPORTS = {
    "model.conf": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act\n"
    "[policy_effect]\ne = some(where (p.eft == allow))\n"
    "[matchers]\nm = r.sub == p.sub && r.obj == p.obj && r.act == p.act\n",
    "policy.csv": f"p, {TRINO}, /reports/weekly, GET\n",
}

pytestmark = pytest.mark.skipif(not ENVOY.exists(), reason="needs Envoy: run `make build/envoy/.ready`")


class Upstream(BaseHTTPRequestHandler):
    """Answers with the headers that it got, and counts."""

    count = 0

    def do_GET(self) -> None:
        """Answers."""
        Upstream.count += 1
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@dataclass
class Answer:
    """What a client of Envoy gets."""

    status: int
    headers: Mapping[str, str]
    body: dict[str, Any] = field(default_factory=dict)


class Front:
    """Envoy, its upstream, its certificates and its issuer of tokens."""

    def __init__(self, folder: Path, gatebook_target: str) -> None:
        """Starts both, and waits until Envoy listens."""
        self._folder = folder
        self._ca = authority()
        self._issuer = ec.generate_private_key(ec.SECP256R1())
        self._upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
        threading.Thread(target=self._upstream.serve_forever, daemon=True).start()
        self._port = free_port()
        server_of(self._ca).write(folder, "tls")
        (folder / "client-ca.pem").write_bytes(self._ca.pem)
        key = {**json.loads(ECAlgorithm.to_jwk(self._issuer.public_key())), "kid": "one", "alg": "ES256", "use": "sig"}
        (folder / "jwks.json").write_text(json.dumps({"keys": [key]}), encoding="utf-8")
        config = CONFIG.read_text(encoding="utf-8").replace("/etc/envoy", str(folder)).replace("0.0.0.0", "127.0.0.1")  # noqa: S104  # it is what the example says
        for shown, actual in (("10000", self._port), ("7443", gatebook_target.rpartition(":")[2])):
            config = replace_once(config, f"port_value: {shown}", f"port_value: {actual}")
        config = replace_once(config, "port_value: 8080", f"port_value: {self._upstream.server_port}")
        (folder / "envoy.yaml").write_text(config, encoding="utf-8")
        command = [
            str(ENVOY),
            "-c",
            str(folder / "envoy.yaml"),
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "-l",
            "warn",
        ]
        self._log = (folder / "envoy.log").open("w+")
        self._process = subprocess.Popen(command, stderr=self._log, stdout=self._log)
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self.get("/healthz").status == 200:
                    return
            except OSError:
                threading.Event().wait(0.1)
        self.close()
        raise RuntimeError("Envoy did not start:\n" + (self._folder / "envoy.log").read_text())

    def get(self, path: str, client: str = TRINO, **headers: str) -> Answer:
        """Asks Envoy, as a client that has a certificate."""
        context = ssl.create_default_context(cadata=self._ca.pem.decode())
        pair: Pair = leaf(self._ca, uris=[client])
        context.load_cert_chain(*pair.write(self._folder, "client"))
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=context, timeout=30)
        try:
            connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            text = response.read().decode()
            told = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, told, json.loads(text) if text.startswith("{") else {})
        finally:
            connection.close()

    def token(self, subject: str) -> str:
        """Makes a token that Envoy accepts."""
        expires = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
        claims = {"iss": "https://login.corp.example", "aud": "usage", "sub": subject, "exp": expires}
        return "Bearer " + jwt.encode(claims, self._issuer, "ES256", headers={"kid": "one"})

    def close(self) -> None:
        """Ends both."""
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
        self._upstream.shutdown()
        self._upstream.server_close()


def replace_once(text: str, old: str, new: str) -> str:
    """Replaces what stands in a text exactly once."""
    assert 1 == text.count(old)
    return text.replace(old, new)


def free_port() -> int:
    """Returns a port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Gives a folder whose path is short."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    """Gives a Gatebook that serves a plain and a governed set."""
    reports = folder / "reports"
    reports.mkdir()
    for name, content in REPORTS.items():
        (reports / name).write_text(content, encoding="utf-8")
    with serving(folder / "data", [reports, POLICIES / "telemetry"], "--metrics", "127.0.0.1:0") as running:
        yield running


@pytest.fixture(scope="module")
def front(folder: Path, server: RunningServer) -> Iterator[Front]:
    """Gives an Envoy before it."""
    running = Front(folder, server.target)
    yield running
    running.close()


def decisions(server: RunningServer) -> list[dict[str, Any]]:
    """Returns the decisions in the book, the newest first."""
    told = gatebook("audit", "list", "--kind", "decision", "--json", "--target", server.target, check=True).stdout
    entries: list[dict[str, Any]] = json.loads(told)["entries"]
    return entries


def id_of(entry: dict[str, Any]) -> str:
    """Returns the id of the decision in an entry."""
    return entry_pb2.AuditEntry.FromString(base64.b64decode(entry["entry_bytes"])).decision.decision_id


def told_by(server: RunningServer) -> Scrape:
    """Returns the metrics of the server."""
    return scrape(str(next(line for line in server.lines if line["event"] == "metrics")["listen"]))


def test_what_is_allowed_gets_through(front: Front, server: RunningServer) -> None:
    """The upstream gets the id of a decision that is in the book, and nothing that the client forged."""
    answer = front.get("/reports/weekly?as=csv", **FORGED)
    assert 200 == answer.status
    receipt = types_pb2.Receipt.FromString(base64.b64decode(answer.body["x-gatebook-receipt"]))
    newest = decisions(server)[0]
    assert answer.body["x-gatebook-decision-id"] == id_of(newest)
    assert receipt.index == int(newest["index"])
    assert "x-gatebook-decision" not in answer.body


@pytest.mark.parametrize(
    ("path", "client"),
    [("/reports/monthly", TRINO), ("/reports/weekly", INTRUDER), ("/reports/weekly/", TRINO), ("/reports/", TRINO)],
)
def test_what_is_denied_does_not(front: Front, server: RunningServer, path: str, client: str) -> None:
    """The client gets 403 with a reason and the id of an entry; the upstream gets nothing."""
    before = Upstream.count
    answer = front.get(path, client)
    assert (403, "NO_MATCHING_RULE") == (answer.status, answer.body["reason"])
    assert answer.body["decision_id"] == answer.headers["x-gatebook-decision-id"]
    assert answer.body["decision_id"] == id_of(decisions(server)[0])
    assert before == Upstream.count


def test_a_client_cannot_say_who_it_is(front: Front) -> None:
    """Headers that look like the mapping, or like an identity, change nothing."""
    forged = {"x_forwarded_client_cert": f"URI={TRINO}", "subject_from": "header:x-user", "x_user": TRINO}
    assert 403 == front.get("/reports/weekly", INTRUDER, **forged).status


@pytest.mark.parametrize("path", ["/reports//weekly", "/reports/x/../weekly", "/reports/./weekly"])
def test_a_path_is_asked_about_as_the_upstream_gets_it(front: Front, path: str) -> None:
    """Envoy brings a path into normal form first, so that rule and upstream see the same."""
    assert 200 == front.get(path).status


@pytest.mark.parametrize("path", ["/reports/..%2fweekly", "/reports/%5cweekly", "/reports/week;ly", "/reports/a%252fb"])
def test_a_path_that_two_may_read_differently(front: Front, path: str) -> None:
    """What remains ambiguous is refused, by Envoy or by Gatebook."""
    before = Upstream.count
    assert 400 == front.get(path).status
    assert before == Upstream.count


def test_obligations_go_to_an_upstream_that_applies_them(front: Front) -> None:
    """An upstream that is declared to apply masks gets the decision, and the client cannot forge it."""
    answer = front.get("/usage/costs", authorization=front.token("fiona"), **FORGED)
    assert 200 == answer.status
    decision = types_pb2.Decision.FromString(base64.b64decode(answer.body["x-gatebook-decision"]))
    assert types_pb2.EFFECT_ALLOW == decision.effect
    assert decision.decision_id == answer.body["x-gatebook-decision-id"]
    assert list(decision.must_apply)


def test_obligations_that_nobody_applies_deny(front: Front) -> None:
    """Envoy can apply no mask, so an allow with one is a denial."""
    answer = front.get("/usage/export", authorization=front.token("fiona"))
    assert (403, "OBLIGATION_NOT_SUPPORTED") == (answer.status, answer.body["reason"])


def test_a_token_names_the_subject(front: Front) -> None:
    """Another subject is denied with the same certificate, and without a token nobody gets in."""
    assert 403 == front.get("/usage/costs", authorization=front.token("mallory")).status
    assert 401 == front.get("/usage/costs").status
    unsigned = jwt.encode({"iss": "https://login.corp.example", "aud": "usage", "sub": "fiona"}, "", "none")
    assert 401 == front.get("/usage/costs", authorization=f"Bearer {unsigned}").status


def test_a_route_that_was_forgotten_is_closed(front: Front, server: RunningServer) -> None:
    """A route without a mapping lets nobody through, is counted, and is no entry."""
    size = len(decisions(server))
    before = Upstream.count
    answer = front.get("/anything")
    assert (503, "UNAVAILABLE") == (answer.status, answer.body["reason"])
    assert (before, size) == (Upstream.count, len(decisions(server)))
    assert 1 <= told_by(server).value("gatebook_refused_calls_total", operation="Check", reason="INVALID_REQUEST")


def test_without_gatebook_nothing_gets_through(front: Front, server: RunningServer) -> None:
    """With Gatebook gone Envoy answers 503, and the upstream gets nothing. The last test: it ends the server."""
    assert 0 == server.stop()
    before = Upstream.count
    assert 503 == front.get("/reports/weekly").status
    assert before == Upstream.count
    assert 200 == front.get("/healthz").status
