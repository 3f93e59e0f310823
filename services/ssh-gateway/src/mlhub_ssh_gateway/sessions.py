"""The logged-in connections: counted, and told to the audit stream."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mlhub_shared.contracts.events import Detail, Event, EventKind
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.message import new_id
from mlhub_shared.contracts.services import OpenSession
from mlhub_shared.runtime.clock import Clock
from mlhub_ssh_gateway.access import Login
from mlhub_ssh_gateway.metrics import BYTES, SESSIONS

_LATELY = timedelta(seconds=10)
"""How long a closed session is remembered: news of what ended it may come later than its end."""


@dataclass(frozen=True)
class Visitor:
    """A credential for a workspace, and an address, as far as they may be kept when he is gone."""

    workspace: WorkspaceId
    credential: str
    """Of the login, a digest."""
    client: str
    """Address."""


@dataclass(eq=False)
class Session:
    """One connection of somebody who is in."""

    login: Login
    client: str
    """Address."""
    opened_at: datetime
    end: Callable[[str], None]
    """Ends the connection, and says the sentence."""
    id: str = field(default_factory=new_id)
    bytes_in: int = 0
    """From the client."""
    bytes_out: int = 0
    """To the client."""
    reported: int = 0
    """Bytes that activity reports know of."""
    ended_by: str | None = None
    """Who ended it, if it did not end by itself: `user:NAME` or `service:NAME`."""

    @property
    def visitor(self) -> Visitor:
        """Whose it is."""
        return Visitor(self.login.workspace, self.login.digest, self.client)

    def count_in(self, size: int) -> None:
        """Bytes from the client."""
        self.bytes_in += size

    def count_out(self, size: int) -> None:
        """Bytes to the client."""
        self.bytes_out += size

    def dismiss(self, sentence: str, by: str) -> None:
        """End it, and say why."""
        self.ended_by = by
        self.end(sentence)

    def to_open_session(self, gateway: str) -> OpenSession:
        """As the bus knows it."""
        return OpenSession(
            id=self.id,
            gateway=gateway,
            requester=self.login.requester,
            workspace=self.login.workspace,
            client=self.client,
            method=self.login.method,
            fingerprint=self.login.fingerprint,
            opened_at=self.opened_at,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )


class Sessions:
    """All sessions that are open."""

    def __init__(
        self, clock: Clock, write: Callable[[Event], None], note_activity: Callable[[WorkspaceId], None]
    ) -> None:
        self._clock, self._write, self._note_activity = clock, write, note_activity
        self._open: dict[str, Session] = {}
        self._closed: deque[tuple[datetime, Visitor]] = deque()
        self.changed = asyncio.Event()
        """Set when one is opened or closed."""

    def open(self, login: Login, client: str, end: Callable[[str], None]) -> Session:
        """Somebody came in."""
        session = Session(login, client, self._clock(), end)
        self._open[session.id] = session
        SESSIONS.inc()
        self._write(_event(EventKind.SESSION_OPENED, session, f"{login.requester} entered by SSH from {client}", {}))
        self._note_activity(login.workspace)
        self.changed.set()
        return session

    def close(self, session: Session) -> None:
        """And went."""
        del self._open[session.id]
        session.end, closed_at = _nothing, self._clock()
        self._closed.append((closed_at, session.visitor))
        SESSIONS.dec()
        BYTES.labels(direction="in").inc(session.bytes_in)
        BYTES.labels(direction="out").inc(session.bytes_out)
        seconds = (closed_at - session.opened_at).total_seconds()
        figures: dict[str, Detail] = {
            "bytes_in": session.bytes_in,
            "bytes_out": session.bytes_out,
            "seconds": round(seconds, 3),
        }
        message = f"{session.login.requester} left after {seconds:.0f} s"
        if session.ended_by is not None:
            figures["ended_by"] = session.ended_by
            message = f"{session.ended_by} ended the session of {session.login.requester} after {seconds:.0f} s"
        self._write(_event(EventKind.SESSION_CLOSED, session, message, figures))
        self._note_activity(session.login.workspace)
        self._forget()
        self.changed.set()

    def get(self, id: str) -> Session | None:
        """The open session of that id."""
        return self._open.get(id)

    def all(self) -> list[Session]:
        """All that are open, the oldest first."""
        return list(self._open.values())

    def logins(self) -> Iterable[Login]:
        """Whoever is in, each once."""
        return dict.fromkeys(session.login for session in self._open.values())

    def present(self, workspace: WorkspaceId, since: datetime) -> set[Visitor]:
        """Those in a workspace now, and those that were at that time, not long ago."""
        self._forget()
        now = {session.visitor for session in self._open.values() if session.login.workspace == workspace}
        return now | {visitor for at, visitor in self._closed if visitor.workspace == workspace and at >= since}

    def moved(self) -> set[WorkspaceId]:
        """The workspaces whose sessions moved bytes since this was last asked."""
        found = set()
        for session in self._open.values():
            total = session.bytes_in + session.bytes_out
            if total != session.reported:
                session.reported = total
                found.add(session.login.workspace)
        return found

    def _forget(self) -> None:
        until = self._clock() - _LATELY
        while self._closed and self._closed[0][0] < until:
            self._closed.popleft()


def _nothing(sentence: str) -> None:
    """There is nothing left to end."""


def _event(kind: EventKind, session: Session, message: str, figures: dict[str, Detail]) -> Event:
    login = session.login
    detail: dict[str, Detail] = {"client": session.client, "method": login.method, "fingerprint": login.fingerprint}
    return Event(
        kind=kind,
        requester=login.requester,
        correlation_id=session.id,
        workspace=login.workspace,
        message=message,
        detail=detail | figures,
    )
