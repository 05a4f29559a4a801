"""A throw-away certificate authority for tests, and certificates of every kind, good and bad."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
DAY = dt.timedelta(days=1)
SIGNING = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
"""What an authority may do with its key."""


@dataclass(frozen=True)
class Pair:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """Returns the certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """Returns the key."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Writes both into a folder; returns their paths."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self.pem)
        key.write_bytes(self.key_pem)
        return certificate, key


def tls_options(folder: Path, ca: Pair) -> tuple[str, ...]:
    """Writes the files of a server that accepts callers of `corp.example`, and returns the options that name them."""
    certificate, key = server_of(ca).write(folder, "server")
    client_ca, callers = folder / "client-ca.pem", folder / "callers.yaml"
    client_ca.write_bytes(ca.pem)
    callers.write_text("certificates: {trust_domains: [corp.example]}\n", encoding="utf-8")
    named = {"--tls-cert": certificate, "--tls-key": key, "--client-ca": client_ca, "--callers": callers}
    return tuple(word for option, path in named.items() for word in (option, str(path)))


def authority(name: str = "test ca") -> Pair:
    """Makes a certificate authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(named, named, key, dt.datetime.now(dt.UTC) - DAY, dt.datetime.now(dt.UTC) + DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return Pair(builder.add_extension(SIGNING, critical=True).sign(key, hashes.SHA256()), key)


def leaf(  # noqa: PLR0913  # each is something that can be wrong with a certificate
    ca: Pair,
    *,
    common_names: Sequence[str] = (),
    uris: Sequence[str] = (),
    hosts: Sequence[str] = (),
    purposes: Sequence[x509.ObjectIdentifier] = (CLIENT,),
    begins: dt.timedelta = -DAY,
    ends: dt.timedelta = DAY,
    is_ca: bool = False,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Pair:
    """Makes a certificate that the CA signs; times are from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Written without a check, so that what no library would write can be written.
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False) for name in common_names])
    now = dt.datetime.now(dt.UTC)
    builder = _builder(named, ca.certificate.subject, key, now + begins, now + ends)
    builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    names = [*map(x509.UniformResourceIdentifier, uris), *map(_host, hosts)]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Pair(builder.sign(ca.key, hashes.SHA256()), key)


def server_of(ca: Pair, **different: object) -> Pair:
    """Makes the certificate of a server on this machine."""
    return leaf(ca, hosts=("localhost", "127.0.0.1"), purposes=(SERVER,), **different)  # type: ignore[arg-type]  # passed on


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begins: dt.datetime, ends: dt.datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(begins).not_valid_after(ends)
