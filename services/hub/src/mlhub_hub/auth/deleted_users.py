"""Tells the other services of deleted users: what the database says was deleted, however often the hub dies."""

import asyncio
from contextlib import aclosing
from datetime import datetime

import structlog
from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mlhub_hub.auth.tables import DeletedUser
from mlhub_shared.bus import Bus
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.errors import MLHubError

log = structlog.get_logger(__name__)

SETTINGS_KEY = "mlhub_deleted_users"
"""Where handlers find this among the web application's settings."""


class DeletedUsers:
    """Says each deletion on the bus, and forgets it once the bus has it; a second time it is the same event."""

    def __init__(self, db: Session, bus: Bus) -> None:
        self._db, self._bus = db, bus
        self._dirty = asyncio.Event()

    def wake(self) -> None:
        """A user was deleted."""
        self._dirty.set()

    async def run(self) -> None:
        """Tell what an earlier hub did not come to tell, then what comes, until cancelled."""
        backoff = Backoff(first=0.2, most=10)
        while True:
            self._dirty.clear()
            try:
                await self._tell_all()
            except (MLHubError, SQLAlchemyError) as error:
                log.warning("deleted_users.not_told", error=str(error))
                await backoff.sleep()
                continue
            backoff.reset()
            await self._dirty.wait()

    async def was_deleted(self, user: str, *, since: datetime) -> bool:
        """Whether a user of this name was deleted since then; BusUnavailable without the bus."""
        noted = select(DeletedUser.id).where(DeletedUser.user == user, DeletedUser.deleted_at >= since)
        if self._db.scalars(noted).first() is not None:
            return True
        async with aclosing(self._bus.past_events(EventKind.USER_DELETED)) as events:
            async for event in events:
                if event.user == user and event.at >= since:
                    return True
        return False

    async def _tell_all(self) -> None:
        rows = self._db.scalars(select(DeletedUser).order_by(DeletedUser.deleted_at)).all()
        for event in [_event(row) for row in rows]:
            await self._bus.emit(event)
            self._forget(event)

    def _forget(self, event: Event) -> None:
        try:
            self._db.execute(delete(DeletedUser).where(DeletedUser.id == event.id))
            self._db.commit()
        except SQLAlchemyError:
            self._db.rollback()
            raise


def _event(row: DeletedUser) -> Event:
    return Event(
        id=row.id,
        at=row.deleted_at,
        kind=EventKind.USER_DELETED,
        user=row.user,
        requester=row.requester,
        correlation_id=row.id,
    )
