"""The bucket of SSH keys on the bus, kept as the database says."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import structlog
from jupyterhub import orm
from sqlalchemy import select
from sqlalchemy.orm import Session

from mlhub_hub.auth.tables import Account, SshKeyRow
from mlhub_shared.bus import Bus, Changes
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.services import SshKey, ssh_key_key
from mlhub_shared.errors import Temporary

log = structlog.get_logger(__name__)

SETTINGS_KEY = "mlhub_ssh_keys"
"""Where handlers find the projection among the web application's settings."""

_LOOK_AGAIN = timedelta(seconds=60)
"""Another authenticator does not say when a user is gone."""


class KeyProjection:
    """Writes to the bucket whatever differs from the database, whenever either may have changed."""

    def __init__(self, db: Session, bus: Bus) -> None:
        self._db, self._bus = db, bus
        self._table = bus.start_table(bus.ssh_keys)
        self._dirty = asyncio.Event()

    def wake(self) -> None:
        """The database has changed."""
        self._dirty.set()

    async def run(self) -> None:
        """Keep the bucket right until cancelled."""
        backoff = Backoff()
        await self._table.synced()
        with self._table.changes() as changes:
            changed = asyncio.ensure_future(_next(changes))
            try:
                while True:
                    self._dirty.clear()
                    try:
                        await self._make_equal()
                    except Temporary as error:
                        log.warning("ssh_keys.not_written", error=str(error))
                        await backoff.sleep()
                        continue
                    backoff.reset()
                    await self._wait(changed)
                    if changed.done():
                        changed = asyncio.ensure_future(_next(changes))
            finally:
                changed.cancel()

    async def _wait(self, changed: asyncio.Future[None]) -> None:
        dirty = asyncio.ensure_future(_happened(self._dirty))
        try:
            await asyncio.wait(
                [changed, dirty], timeout=_LOOK_AGAIN.total_seconds(), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            dirty.cancel()

    async def _make_equal(self) -> None:
        wanted = wanted_keys(self._db)
        present = dict(self._table.items())
        for key, value in wanted.items():
            if key not in present or present[key].value != value:
                await self._bus.ssh_keys.put(key, value)
        for key in present.keys() - wanted.keys():
            await self._bus.ssh_keys.delete(key)


async def _next(changes: Changes) -> None:
    await anext(changes)


async def _happened(event: asyncio.Event) -> None:
    await event.wait()


def wanted_keys(db: Session) -> dict[str, SshKey]:
    """The keys that may log in: of users that there are, and whose accounts are not withdrawn."""
    rows = db.execute(
        select(SshKeyRow, Account)
        .join(orm.User, orm.User.name == SshKeyRow.user)
        .outerjoin(Account, Account.name == SshKeyRow.user)
    )
    return {
        ssh_key_key(key.fingerprint): SshKey(
            user=key.user,
            label=key.label,
            public_key=key.public_key,
            fingerprint=key.fingerprint,
            added_at=key.added_at,
        )
        for key, account in rows
        if account is None or not account.is_withdrawn
    }


def project_ssh_keys(db: Session, bus: Bus) -> KeyProjection:
    """Start to keep the bucket as the database says, until the bus is closed."""
    projection = KeyProjection(db, bus)
    bus.run(projection.run())
    return projection


def wake_projection(settings: Mapping[str, object]) -> None:
    """Tell the projection of this web application, if it has one, that the database has changed."""
    projection = settings.get(SETTINGS_KEY)
    if isinstance(projection, KeyProjection):
        projection.wake()
