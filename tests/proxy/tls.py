"""Certificates of a test's own, and what a server shows."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Made:
    """A key and its self-signed certificate."""

    key: str
    certificate: str

    def put(self, folder: Path) -> None:
        """Mount it as people do: two files, one after the other."""
        (folder / "cert.crt").write_text(self.certificate)
        (folder / "cert.key").write_text(self.key)

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.certificate)


def make(
    name: str = "hub.example",
    *,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    days: tuple[int, int] = (-1, 90),
    alternatives: Iterable[str] = (),
) -> Made:
    """A certificate that is valid between these days from now."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([_general(each) for each in (name, *alternatives)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Made(pem, certificate.public_bytes(Encoding.PEM).decode())


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


async def shown(port: int, host: str = "127.0.0.1") -> bytes:
    """The certificate that a new connection gets, DER."""
    found = (await handshake(port, ANY, host=host)).getpeercert(binary_form=True)
    assert isinstance(found, bytes)
    return found


async def handshake(port: int, context: ssl.SSLContext, *, host: str = "127.0.0.1") -> ssl.SSLObject:
    """What came out of a handshake, whose connection is no more."""
    async with asyncio.timeout(20):
        _, writer = await asyncio.open_connection(host, port, ssl=context)
    found: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.transport.abort()
    return found


def client() -> ssl.SSLContext:
    """A context that trusts anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def parsed(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


def names_of(der: bytes) -> set[str]:
    """Names and addresses of a certificate."""
    names = parsed(der).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


ANY = client()
