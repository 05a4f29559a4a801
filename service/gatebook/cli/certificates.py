"""A throw-away certificate authority, for trying out TLS.

Owns what `gatebook keys certificates` makes. The key of the authority is never written: who wants another
certificate makes all of them anew. Real callers have real authorities (SPIFFE, or a company's own).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS_MAX = 90
SPIFFE = "spiffe://"


def make_certificates(folder: Path, hosts: Sequence[str], clients: Sequence[str], days: int) -> list[Path]:
    """Makes an authority, a server for the hosts and a client for each name; returns the files written.

    Args:
        folder: Where they go.
        hosts: Names and addresses of the server.
        clients: A SPIFFE id or a common name of each client. Its last part names its files.
        days: How long they count.
    """
    ca_key = generate_private_key(SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gatebook throw-away ca")])
    ca = _builder(ca_name, ca_name, ca_key, days)
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    ca = ca.add_extension(_usage(signs=True), critical=True)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    written = [_write(folder / "ca.crt", ca.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM), 0o644)]
    for file, name, purpose in [
        ("server", "", ExtendedKeyUsageOID.SERVER_AUTH),
        *((client.rpartition("/")[2], client, ExtendedKeyUsageOID.CLIENT_AUTH) for client in clients),
    ]:
        key = generate_private_key(SECP256R1())
        is_common = name and not name.startswith(SPIFFE)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if is_common else [])
        builder = _builder(subject, ca_name, key, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(authority, critical=False)
        names = [_host(host) for host in hosts] if not name else [x509.UniformResourceIdentifier(name)]
        if not is_common:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        pem = builder.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM)
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        written += [_write(folder / f"{file}.crt", pem, 0o644), _write(folder / f"{file}.key", key_pem, 0o600)]
    return written


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=days))


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: bytes, mode: int) -> Path:
    """Makes a file; one that exists is left alone, and is an error."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    return path
