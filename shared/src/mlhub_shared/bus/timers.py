"""Durable timers: schedules that the server fires, also those that came due while everything was down."""

from datetime import UTC, datetime, timedelta

import nats.js.errors
from nats.js.api import Header

from mlhub_shared.bus.connection import OUTAGES, Connection
from mlhub_shared.contracts.message import Message
from mlhub_shared.contracts.subjects import Subjects
from mlhub_shared.errors import BusUnavailable

_KEEP_FIRED = timedelta(days=7)
"""How long a fired timer waits for a clean-up service that is away."""


class Timers:
    """Arms and cancels the timers of workspaces. They fire at least once: look at the state again when one does."""

    def __init__(self, connection: Connection, subjects: Subjects) -> None:
        self._connection, self._subjects = connection, subjects

    async def arm(self, purpose: str, workspace: str, when: datetime, message: Message) -> None:
        """Have `message` delivered on the due subject at `when`; replaces the timer of that purpose."""
        await self._connection.publish(
            self._subjects.timer(purpose, workspace),
            message.encode(),
            headers={
                Header.SCHEDULE: f"@at {_rfc3339(when)}",
                Header.SCHEDULE_TARGET: self._subjects.due(purpose, workspace),
                Header.SCHEDULE_TTL: f"{int(_KEEP_FIRED.total_seconds())}s",
            },
        )

    async def cancel(self, purpose: str, workspace: str) -> None:
        """Forget the timer, armed or not. By purge: one overwritten by a plain message fires after a restart."""
        await self._connection.purge(self._subjects.timers, self._subjects.timer(purpose, workspace))

    async def pending(self) -> set[tuple[str, str]]:
        """(purpose, workspace) of every timer that has not fired; BusUnavailable if the bus does not tell."""
        prefix = f"{self._subjects.hub}.timer."
        try:
            info = await self._connection.js.stream_info(self._subjects.timers, subjects_filter=f"{prefix}>")
        except (*OUTAGES, nats.js.errors.NotFoundError) as error:
            raise BusUnavailable("the bus does not tell which timers there are") from error
        subjects = info.state.subjects or {}
        parts = (subject.removeprefix(prefix).split(".", 1) for subject in subjects)
        return {(purpose, workspace) for purpose, workspace in parts}


def _rfc3339(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
