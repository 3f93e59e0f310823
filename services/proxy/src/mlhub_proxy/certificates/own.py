"""A certificate that we sign ourselves, for when there is no other."""

import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mlhub_proxy.certificates.pair import Pair, read_pair
from mlhub_proxy.settings import ProxySettings
from mlhub_shared.runtime.hosts import Network

SUBJECT = "CN=ML Hub\\, signed by itself"

_VALID = timedelta(days=365)
"""The longest that Mozilla's guide allows."""
_RENEWED = timedelta(days=30)
"""So long before its end another one takes its place."""
_SLOW_CLOCKS = timedelta(hours=1)
_ANYWHERE = frozenset({"*", "0.0.0.0", "::", "[::]"})  # noqa: S104  (compared with, not bound to)
_MOST_ADDRESSES = 30
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")

_IPV4 = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL")
_IPV6 = re.compile(r"^([0-9a-f]{32}) \S+ \S+ 00 ", re.MULTILINE)
"""Those of global scope."""


def still_serves(pair: Pair, settings: ProxySettings, now: datetime) -> bool:
    """Whether a certificate of our own can stay."""
    return pair.subject == SUBJECT and pair.covers(settings.served_names) and now < pair.expires - _RENEWED


def make_own(settings: ProxySettings, now: datetime, *, last: Pair | None = None) -> Pair:
    """Make one for every name and address that this host answers to; it blocks for some milliseconds.

    And for those of the last one, unless its time is over: replicas with other settings must not take turns for ever.
    """
    kept = last.names if last is not None and now < last.expires - _RENEWED else ()
    names = sorted({*all_names(settings), *kept})
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ML Hub, signed by itself")])
    public = key.public_key()
    usage = {"digital_signature": True, "content_commitment": False, "key_encipherment": False}
    usage |= {"data_encipherment": False, "key_agreement": False, "key_cert_sign": False, "crl_sign": False}
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLOW_CLOCKS)
        .not_valid_after(now - _SLOW_CLOCKS + _VALID)
        .add_extension(x509.SubjectAlternativeName(list(map(_general, names))), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage, encipher_only=False, decipher_only=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return read_pair((key_pem + certificate.public_bytes(Encoding.PEM)).decode())


def all_names(settings: ProxySettings) -> list[str]:
    """Names of the settings and of this host, and the addresses at which the public port listens."""
    host = settings.public_host.strip("[]")
    here = local_addresses(settings.refused_networks) if settings.public_host in _ANYWHERE else [host]
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname().lower(), *settings.served_names, *here]
    return list(dict.fromkeys(name for name in names if _is_address(name) or _HOST.fullmatch(name.removeprefix("*."))))


def local_addresses(but: Iterable[Network], proc: Path = Path("/proc/net")) -> list[str]:
    """Addresses of this host's interfaces but those in some networks, which answer nobody."""
    refused = list(but)
    found = [address for address in _addresses(proc) if not any(address in network for network in refused)]
    return [str(address) for address in found if not address.is_loopback][:_MOST_ADDRESSES]


def _addresses(proc: Path) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    for name, pattern in (("fib_trie", _IPV4), ("if_inet6", _IPV6)):
        try:
            text = (proc / name).read_text()
        except OSError:
            continue  # a kernel without this kind of address
        for written in dict.fromkeys(pattern.findall(text)):
            yield ipaddress.ip_address(written if "." in written else bytes.fromhex(written))


def _general(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
