"""What tells one cluster from any other, the same for whoever reaches it."""

import hashlib
import re
import ssl
from pathlib import Path

from kubernetes_asyncio.client import Configuration

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def cluster_marks(configuration: Configuration) -> list[str]:
    """Of each authority that the API is trusted by: two who reach it have one of them in common, also while the
    cluster changes its authority. Where nobody is named, of the API's address. Reads a file.
    """
    authorities = configuration.ssl_ca_cert
    text = Path(authorities).read_text(errors="replace") if authorities else ""
    found = {ssl.PEM_cert_to_DER_cert(one) for one in _CERTIFICATE.findall(text)}
    return sorted(map(_mark, found or {str(configuration.host).rstrip("/").encode()}))


def _mark(what: bytes) -> str:
    return hashlib.sha256(what).hexdigest()[:16]
