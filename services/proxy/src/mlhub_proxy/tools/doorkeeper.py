"""Decides who gets through to which port of a workspace."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import quote

from mlhub_proxy.routes import address
from mlhub_proxy.tools.asked import Asked
from mlhub_proxy.tools.denials import Denials
from mlhub_proxy.tools.hub import Credential, Visitor
from mlhub_proxy.tools.pages import Refusal
from mlhub_proxy.tools.recent import Known, Recent
from mlhub_proxy.tools.seals import Seals, Session, Ticket
from mlhub_shared.bus import Bus
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.queries import OPEN_PORT, OpenPort
from mlhub_shared.contracts.scopes import may_access
from mlhub_shared.contracts.workspace import Endpoint, Phase, WorkspaceRecord
from mlhub_shared.errors import MLHubError, Permanent, Temporary

_KEPT, _KEPT_UNKNOWN = 5.0, 1.0
"""Seconds that a yes of the hub holds, and that a token stays unknown."""
_WORKERS_TIME = timedelta(seconds=2)
"""With the hub's it must be less than HAProxy waits."""
_MOST = 10_000
_LOWEST, _HIGHEST = 1024, 65535
_LONGEST_WAY = 2000
"""Characters of an address that somebody comes back to after a login; without its query otherwise."""


@dataclass(frozen=True)
class Permission:
    """What HAProxy may do."""

    seconds: float
    """How long it may do so again for the same credential and port."""
    user: str
    """As a header can carry it; empty for what is no user."""
    hides_authorization: bool
    """That header was meant for the hub."""
    ip: str = ""
    port: int = 0
    """Where the port is reached; 0: the workspace's own."""


class _PortOf(NamedTuple):
    workspace: WorkspaceId
    generation: int
    node: str | None
    port: int


class Doorkeeper:
    """Lets in whom the hub lets in."""

    def __init__(
        self,
        bus: Bus,
        record_of: Callable[[str], WorkspaceRecord | None],
        visitors: Recent[Credential, Visitor | None],
        seals: Seals,
        denials: Denials,
        *,
        base: str,
    ) -> None:
        self._bus, self._record_of, self._visitors = bus, record_of, visitors
        self._seals, self._denials, self._base = seals, denials, base
        self._ports = Recent(self._open, lambda _: _KEPT, most=_MOST)

    async def close(self) -> None:
        """Ask no more."""
        await self._ports.close()

    async def admit(self, asked: Asked) -> Permission:
        """Refusal for who does not get through."""
        record = self._record(asked)
        port = _port(asked.port)
        session = self._seals.session_of(asked.session) if asked.session else None
        by_session, by_token = await self._known(asked, session)
        is_here = session is not None and session.workspace == record.name
        known = [one for one in (by_session if is_here else None, by_token) if one and one.value]
        if not known:
            if by_session:
                # No browser takes a session to another workspace by itself.
                self._note(record, by_session, asked, port)
            raise self._stranger(asked)
        allowed = next((one for one in known if one.value and may_access(one.value.scopes, record.workspace)), None)
        if asked.is_foreign or allowed is None or allowed.value is None:
            self._note(record, known[0], asked, port)
            raise self._denied(asked)
        place = await self._place(record, port)
        until = min(allowed.until, place.until) if place else allowed.until
        visitor = allowed.value
        return Permission(
            seconds=max(0.0, until - asyncio.get_running_loop().time()),
            user=quote(visitor.name, safe="@") if visitor.kind == "user" else "",
            # Jupyter's own scheme is never a tool's; a bearer may be.
            hides_authorization=asked.scheme == "token" or (by_token is not None and by_token.value is not None),
            ip=place.value.host if place else "",
            port=place.value.port if place else 0,
        )

    def _record(self, asked: Asked) -> WorkspaceRecord:
        record = self._record_of(asked.name)
        if record is None or record.phase is not Phase.READY or record.generation != asked.generation:
            raise Refusal(503, "Not there right now", "This workspace is just starting or ending.", reloads=True)
        return record

    async def _known(
        self, asked: Asked, session: Session | None
    ) -> tuple[Known[Visitor | None] | None, Known[Visitor | None] | None]:
        try:
            by_session = await self._visitors.get(Credential(session.token, is_sealed=True)) if session else None
            by_token = await self._visitors.get(Credential(asked.hub_token)) if asked.hub_token else None
        except Temporary as error:
            raise Refusal(
                503,
                "The hub does not answer",
                "Nobody can be let in to the tools of a workspace until it does.",
                reloads=True,
                headers={"Retry-After": "3"},
            ) from error
        return by_session, by_token

    def _note(self, record: WorkspaceRecord, known: Known[Visitor | None], asked: Asked, port: int | None) -> None:
        if known.value is not None:
            self._denials.note(record, known.value.requester, client=asked.client, port=port)

    def _stranger(self, asked: Asked) -> Refusal:
        if asked.navigates:
            return Refusal(302, "Log in", "Log in at the hub.", headers={"Location": self._login(asked)})
        message = "This needs a token of the hub that may access the workspace, or the hub's login."
        return Refusal(401, "Log in", message, headers={"WWW-Authenticate": "Bearer"})

    def _denied(self, asked: Asked) -> Refusal:
        if asked.is_foreign:
            return Refusal(403, "Not from here", "A page of another site has sent this: tools do not take that.")
        link = (self._login(asked), "Log in again, if you have been given access meanwhile") if asked.session else None
        return Refusal(
            403, "No access", "You have no access to this workspace, so its tools are closed too.", link=link
        )

    def _login(self, asked: Asked) -> str:
        below = asked.below if len(asked.below) <= _LONGEST_WAY else asked.below.partition("?")[0][:_LONGEST_WAY]
        ticket = Ticket(name=asked.name, below=below, site=asked.site)
        return f"{self._base}hub-tools/login?to={self._seals.ticket(ticket)}"

    async def _place(self, record: WorkspaceRecord, port: int | None) -> Known[Endpoint] | None:
        if port is None:
            return None
        try:
            return await self._ports.get(_PortOf(record.workspace, record.generation, record.node, port))
        except Permanent as error:
            nothing = f"Nothing listens on port {port} of this workspace"
            raise Refusal(
                502,
                nothing,
                f"{nothing}. Start the program that should, or look at its address.",
                reloads=True,
            ) from error
        except MLHubError as error:
            raise Refusal(
                503, "No answer", "The node of this workspace does not say where its ports are.", reloads=True
            ) from error

    async def _open(self, wanted: _PortOf) -> Endpoint:
        query = OpenPort(workspace=wanted.workspace, port=wanted.port)
        endpoint = await self._bus.ask(OPEN_PORT, query, Endpoint, node=wanted.node, timeout=_WORKERS_TIME)
        address(endpoint)
        return endpoint


def keep_visitor(visitor: Visitor | None) -> float:
    """Seconds that what the hub said of a token holds."""
    return _KEPT_UNKNOWN if visitor is None else _KEPT


def _port(written: str) -> int | None:
    """None: none is named; Refusal for one that no tool may have, or that can be written in another way."""
    if not written:
        return None
    if written.startswith("0") or len(written) > 5 or not _LOWEST <= int(written) <= _HIGHEST:
        message = f"Tools are on the ports from {_LOWEST} to {_HIGHEST} of a workspace."
        raise Refusal(404, "There is no such port", message)
    return int(written)
