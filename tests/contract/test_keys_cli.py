"""`gatebook keys certificates` and `tokens`: a throw-away authority and issuer that nobody can use twice."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store
from tests.serving import gatebook

from gatebook.door.callers_file import parse_callers

TRINO = "spiffe://corp.example/trino"


def test_certificates_verify_and_their_authority_signs_nothing_more(tmp_path: Path) -> None:
    """Server and clients verify by the CA; their keys are their owner's alone, and that of the CA is nowhere."""
    made = gatebook("keys", "certificates", str(tmp_path / "tls"), "--client", TRINO, "--client", "nightly", check=True)
    written = {path.name: path for path in sorted((tmp_path / "tls").iterdir())}
    read = {name: x509.load_pem_x509_certificate(p.read_bytes()) for name, p in written.items() if p.suffix == ".crt"}
    policy = PolicyBuilder().store(Store([read["ca.crt"]]))
    verified = policy.build_server_verifier(x509.DNSName("localhost")).verify(read["server.crt"], [])
    names = policy.build_client_verifier().verify(read["trino.crt"], []).subjects

    assert sorted(Path(line).name for line in made.stdout.splitlines()) == list(written)
    assert list(written) == [
        "ca.crt",
        "nightly.crt",
        "nightly.key",
        "server.crt",
        "server.key",
        "trino.crt",
        "trino.key",
    ]
    assert verified[-1] == read["ca.crt"]
    assert names == [x509.UniformResourceIdentifier(TRINO)]
    assert read["nightly.crt"].subject.rfc4514_string() == "CN=nightly"
    assert {p.stat().st_mode & 0o777 for p in written.values() if p.suffix == ".key"} == {0o600}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A folder that has certificates is left as it is."""
    gatebook("keys", "certificates", str(tmp_path / "tls"), check=True)
    before = (tmp_path / "tls" / "ca.crt").read_bytes()
    again = gatebook("keys", "certificates", str(tmp_path / "tls"))

    assert again.returncode == 1
    assert again.stderr.endswith("exists: name another folder\n")
    assert (tmp_path / "tls" / "ca.crt").read_bytes() == before


def test_tokens_are_those_of_people_whom_a_server_knows(tmp_path: Path) -> None:
    """A token is its person's alone, counts where the written `callers.yaml` is given, and is made once."""
    folder = tmp_path / "tokens"
    made = gatebook("keys", "tokens", str(folder), "--person", "kai", "--person", "hana", "--hours", "1", check=True)
    again = gatebook("keys", "tokens", str(folder), "--person", "kai")
    elsewhere = gatebook("keys", "tokens", str(tmp_path / "no"), "--person", "../kai")
    names = [Path(line).name for line in made.stdout.splitlines()]
    callers, _ = parse_callers((folder / "callers.yaml").read_bytes(), "callers.yaml", folder)
    assert callers is not None
    (issuer,) = callers.issuers
    key = jwt.PyJWK(json.loads((folder / "keys.json").read_text())["keys"][0])
    claims = jwt.decode((folder / "kai.token").read_text().strip(), key, issuer=issuer.issuer, audience="gatebook")

    assert ["callers.yaml", "keys.json", "hana.token", "kai.token"] == names
    assert ("kai", 3_600) == (claims["sub"], claims["exp"] - claims["iat"])
    assert ("people", "user") == (issuer.name, issuer.subject_type)
    assert {0o600} == {path.stat().st_mode & 0o777 for path in folder.glob("*.token")}
    assert (1, 2) == (again.returncode, elsewhere.returncode)
    assert not (tmp_path / "no").exists()
