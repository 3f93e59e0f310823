"""Who may not wake a workspace for a while: whoever was in it when it was stopped on request.

Editors connect again by themselves when a session ends, and would start at once what somebody has just stopped.
"""

from datetime import datetime, timedelta

from mlhub_shared.bus import Table
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceRecord
from mlhub_shared.runtime.clock import Clock
from mlhub_ssh_gateway.sessions import Session, Sessions, Visitor


class Quiet:
    """Watches for stops that were asked for."""

    def __init__(self, records: Table[WorkspaceRecord], sessions: Sessions, period: timedelta, clock: Clock) -> None:
        self._records, self._sessions, self._period, self._clock = records, sessions, period, clock
        self._until: dict[Visitor, datetime] = {}
        self._seen: dict[str, int] = {}
        """Generations of the stops that have been looked at."""

    def reason(self, session: Session) -> str | None:
        """Why somebody does not wake his workspace now, in a sentence; None if he does."""
        until = self._until.get(session.visitor)
        now = self._clock()
        if until is None or until <= now:
            return None
        seconds = (until - now).total_seconds()
        return (
            f"workspace {session.login.workspace.address} was stopped on request while you were in it, so connecting "
            f"from here does not start it before {until:%H:%M:%S} UTC ({seconds:.0f} s from now); "
            "start it on its page, or connect from elsewhere or with another key"
        )

    async def run(self) -> None:
        """Watch for ever."""
        with self._records.changes() as changes:
            async for names in changes:
                self._forget()
                for name in names:
                    self._look(name)

    def _look(self, name: str) -> None:
        record = self._records.value(name)
        if record is None or record.phase.is_active:
            self._seen.pop(name, None)
            if record is not None:
                self._release(record.workspace)
            return
        if record.reason is not Reason.ASKED or record.phase is Phase.FAILED:
            return
        if self._seen.get(name) != record.generation:
            self._seen[name] = record.generation
            self._note(record)

    def _note(self, record: WorkspaceRecord) -> None:
        now = self._clock()
        for visitor in self._sessions.present(record.workspace, record.phase_since):
            self._until[visitor] = now + self._period

    def _forget(self) -> None:
        now = self._clock()
        self._until = {visitor: until for visitor, until in self._until.items() if until > now}

    def _release(self, workspace: WorkspaceId) -> None:
        """It was started in another way: what comes after is another story."""
        for visitor in [visitor for visitor in self._until if visitor.workspace == workspace]:
            del self._until[visitor]
