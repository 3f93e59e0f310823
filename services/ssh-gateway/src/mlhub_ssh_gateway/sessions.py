"""The logged-in connections: counted, and told to the audit stream."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from mlhub_shared.contracts.events import Detail, Event, EventKind
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.message import new_id
from mlhub_shared.runtime.clock import Clock
from mlhub_ssh_gateway.access import Login
from mlhub_ssh_gateway.metrics import BYTES, SESSIONS


@dataclass(eq=False)
class Session:
    """One connection of somebody who is in."""

    login: Login
    client: str
    """Address."""
    opened_at: datetime
    id: str = field(default_factory=new_id)
    bytes_in: int = 0
    """From the client."""
    bytes_out: int = 0
    """To the client."""
    reported: int = 0
    """Bytes that activity reports know of."""

    def count_in(self, size: int) -> None:
        """Bytes from the client."""
        self.bytes_in += size

    def count_out(self, size: int) -> None:
        """Bytes to the client."""
        self.bytes_out += size


class Sessions:
    """All sessions that are open."""

    def __init__(
        self, clock: Clock, write: Callable[[Event], None], note_activity: Callable[[WorkspaceId], None]
    ) -> None:
        self._clock, self._write, self._note_activity = clock, write, note_activity
        self._open: set[Session] = set()

    def open(self, login: Login, client: str) -> Session:
        """Somebody came in."""
        session = Session(login, client, self._clock())
        self._open.add(session)
        SESSIONS.inc()
        self._write(_event(EventKind.SESSION_OPENED, session, f"{login.requester} entered by SSH from {client}", {}))
        self._note_activity(login.workspace)
        return session

    def close(self, session: Session) -> None:
        """And went."""
        self._open.discard(session)
        SESSIONS.dec()
        BYTES.labels(direction="in").inc(session.bytes_in)
        BYTES.labels(direction="out").inc(session.bytes_out)
        seconds = (self._clock() - session.opened_at).total_seconds()
        figures: dict[str, Detail] = {
            "bytes_in": session.bytes_in,
            "bytes_out": session.bytes_out,
            "seconds": round(seconds, 3),
        }
        message = f"{session.login.requester} left after {seconds:.0f} s"
        self._write(_event(EventKind.SESSION_CLOSED, session, message, figures))
        self._note_activity(session.login.workspace)

    def moved(self) -> set[WorkspaceId]:
        """The workspaces whose sessions moved bytes since this was last asked."""
        found = set()
        for session in self._open:
            total = session.bytes_in + session.bytes_out
            if total != session.reported:
                session.reported = total
                found.add(session.login.workspace)
        return found


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
