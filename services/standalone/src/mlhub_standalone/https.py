"""Whether people come in by HTTPS, and by which certificate."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from mlhub_standalone.errors import LauncherError

SWITCHES = ("MLHUB_PROXY_TLS", "SSL_ENABLED")
"""Variables that say it; the first one set counts."""

MOUNTED = (Path("/run/secrets"), Path("/resources/ssl"))
"""Where the image of the first ML Hub looked for a certificate."""

_YES, _NO = {"on", "true", "yes", "1"}, {"off", "false", "no", "0"}
_FILES = ("cert.pem", "cert.crt")


@dataclass(frozen=True)
class Certificate:
    """What there is to say of one."""

    fingerprint: str
    """SHA-256, as browsers show it."""
    is_self_signed: bool
    names: list[str]
    until: datetime


def read(file: Path) -> Certificate | None:
    """The first certificate of a file; None where there is none."""
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())[0]
    except (OSError, ValueError):
        return None
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    return Certificate(
        fingerprint=found.fingerprint(SHA256()).hex(":").upper(),
        is_self_signed=found.issuer == found.subject,
        names=[str(name.value) for name in names],
        until=found.not_valid_after_utc,
    )


def wanted(environment: Mapping[str, str]) -> bool | None:
    """What the variables say; None: nothing. LauncherError where it is neither yes nor no."""
    for name in SWITCHES:
        value = environment.get(name, "").strip().lower()
        if value in _YES | _NO:
            return value in _YES
        if value:
            raise LauncherError(f"{name} takes on or off, not {environment[name]!r}")
    return None


def with_certificate(*folders: Path) -> Path | None:
    """The first folder in which a certificate lies."""
    return next((folder for folder in folders if any((folder / name).is_file() for name in _FILES)), None)
