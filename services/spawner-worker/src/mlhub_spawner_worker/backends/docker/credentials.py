"""What a registry is told that does not let everybody in: logins from a file as `docker login` writes it."""

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from mlhub_spawner_worker.backends.base import BackendError

HEADER = "X-Registry-Auth"

_HUB = "https://index.docker.io/v1/"
"""Where that file has the logins of the registry that needs no name."""


def registry_of(image: str) -> str:
    """The registry of an image as that file calls it."""
    first, slash, _ = image.partition("/")
    return first if slash and (first == "localhost" or "." in first or ":" in first) else _HUB


def header(image: str, file: Path | None) -> str | None:
    """The value of the header for a pull; None where there is no login for the image's registry."""
    if file is None:
        return None
    registry = registry_of(image)
    try:
        logins = json.loads(file.read_text()).get("auths", {})
        known = logins.get(registry) or logins.get(f"https://{registry}") or {}
        login = _login(known) | {"serveraddress": registry} if known else None
    except (OSError, ValueError, AttributeError) as error:
        raise BackendError(f"The file of logins for registries can't be used: {type(error).__name__}") from error
    return None if login is None else base64.urlsafe_b64encode(json.dumps(login).encode()).decode()


def _login(known: dict[str, Any]) -> dict[str, str]:
    if token := known.get("identitytoken"):
        return {"identitytoken": str(token)}
    try:
        user, _, password = base64.b64decode(known.get("auth", "")).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("no login") from error
    return {"username": user or str(known.get("username", "")), "password": password or str(known.get("password", ""))}
