"""What HAProxy asks about: one request to a tool, as its headers tell it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_SAFE = frozenset({"GET", "HEAD"})


@dataclass(frozen=True)
class Asked:
    """One request."""

    name: str
    """The workspace."""
    generation: int
    port: str
    """As written; empty for what the workspace's image serves by itself."""
    below: str
    """Path and query below the workspace's prefix, or below its site."""
    site: str
    """First label of the host that is this port alone; empty where it is a path."""
    method: str
    is_upgrade: bool
    is_foreign: bool
    """Another site's page has sent it, and it may change something."""
    client: str
    wants_html: bool
    """A person will look at the answer."""
    navigates: bool
    """The browser's window goes there, so that it can be led to a login."""
    session: str = field(repr=False)
    scheme: str = ""
    """Of the Authorization header, lower case."""
    token: str = field(default="", repr=False)

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Asked":
        """KeyError or ValueError if it is not HAProxy that asks."""
        query = headers.get("x-query", "")
        scheme, _, token = headers.get("authorization", "").partition(" ")
        method, is_upgrade = headers["x-method"], "x-upgrade" in headers
        wants_html = "text/html" in headers.get("accept", "")
        # Old browsers do not say what they are about.
        navigates = headers.get("sec-fetch-mode", "navigate") == "navigate"
        return cls(
            name=headers["x-name"],
            generation=int(headers["x-generation"]),
            port=headers.get("x-port", ""),
            below=headers.get("x-below", "") + (f"?{query}" if query else ""),
            site=headers.get("x-site", ""),
            method=method,
            is_upgrade=is_upgrade,
            is_foreign="x-foreign" in headers,
            client=headers["x-client"],
            wants_html=wants_html,
            navigates=wants_html and navigates and method in _SAFE and not is_upgrade,
            session=headers.get("x-session", ""),
            scheme=scheme.lower(),
            token=token.strip(),
        )

    @property
    def hub_token(self) -> str:
        """What may be a token of the hub; empty if there is none."""
        return self.token if self.scheme in {"token", "bearer"} else ""
