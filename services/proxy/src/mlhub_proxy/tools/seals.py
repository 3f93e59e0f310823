"""What browsers carry for us, so that they can neither make it nor change it."""

import base64
import binascii
import hashlib
import hmac
import time
from typing import NamedTuple

from pydantic import BaseModel, SecretStr, ValidationError

_LASTS = 600
"""Seconds that a login may take."""


class Session(NamedTuple):
    """What somebody who has logged in carries."""

    token: str
    workspace: str
    """The only one it counts for."""


class Ticket(BaseModel):
    """On the way to the hub and back: where somebody wants to go."""

    name: str
    """The workspace."""
    below: str
    """Path and query below the workspace's prefix."""
    site: str = ""
    """First label of the host they come from and return to; empty: below the workspace's prefix."""
    browser: str = ""
    """Hash of what the browser keeps meanwhile, that nobody logs another one in. Empty: not on its way yet."""
    at_site: str = ""
    """The same of what it keeps at that host."""
    is_back: bool = False
    """The hub has sent this browser back."""
    ends: float = 0


class Seals:
    """Signs with a key that all replicas have, and nobody else: it comes from the hub's token."""

    def __init__(self, secret: SecretStr) -> None:
        self._key = hmac.digest(secret.get_secret_value().encode(), b"mlhub-proxy tools", hashlib.sha256)

    def session(self, token: str, workspace: str) -> str:
        """A cookie with an OAuth token that counts for this workspace only."""
        text = f"{token}.{workspace}"
        return f"{text}.{self._mark('session', text)}"

    def session_of(self, cookie: str) -> Session | None:
        """What such a cookie says; None if it is not one of ours."""
        text, _, mark = cookie.rpartition(".")
        if not hmac.compare_digest(mark.encode(), self._mark("session", text).encode()):
            return None
        token, _, workspace = text.rpartition(".")  # whose name has no dot
        return Session(token, workspace) if token else None

    def ticket(self, ticket: Ticket) -> str:
        """Good for ten minutes."""
        text = ticket.model_copy(update={"ends": time.time() + _LASTS}).model_dump_json()
        packed = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        return f"{packed}.{self._mark('ticket', packed)}"

    def ticket_of(self, text: str) -> Ticket | None:
        """None if we did not make it, or it is too old."""
        packed, _, mark = text.partition(".")
        if not hmac.compare_digest(mark.encode(), self._mark("ticket", packed).encode()):
            return None
        try:
            found = Ticket.model_validate_json(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        except (ValidationError, binascii.Error):
            return None
        return found if found.ends > time.time() else None

    def verifier(self, browser: str) -> str:
        """The secret of PKCE for this browser's login: any replica can tell it again."""
        return self._mark("verifier", browser)

    def _mark(self, purpose: str, text: str) -> str:
        mark = hmac.digest(self._key, f"{purpose}|{text}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(mark).decode().rstrip("=")
