"""Keeps one warning and one end armed for every workspace that has an end, and acts when they fire."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

import structlog

from mlhub_cleanup.commands import Commands
from mlhub_cleanup.expiry import Action, due, plan
from mlhub_cleanup.metrics import LATENESS
from mlhub_shared.bus import Bus, Delivery, Table
from mlhub_shared.contracts.timers import Purpose, Timer, warns_at
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.runtime.clock import Clock

log = structlog.get_logger(__name__)

_AT_ONCE = 32
"""Timers armed or handled at the same time: a full house may end in one second."""

_ATTEMPTS = 100
"""A stop that is due is not given up because a bus or a worker was away for a while."""


class TimerKeeper:
    """Follows the records and arms, moves and cancels their timers; what fires is checked against the record."""

    def __init__(
        self, bus: Bus, records: Table[WorkspaceRecord], commands: Commands, clock: Clock, warn_before: timedelta
    ) -> None:
        self._bus, self._records, self._commands = bus, records, commands
        self._clock, self._warn_before = clock, warn_before
        self._armed: dict[str, dict[Purpose, Timer | None]] = {}
        self._settling = asyncio.Lock()

    def consume(self) -> asyncio.Task[None]:
        """Handle what fires, also what fired while nobody was there."""
        return self._bus.consume(
            stream=self._bus.subjects.timers,
            durable="cleanup",
            filters=[self._bus.subjects.all_due],
            decode=Timer.model_validate_json,
            handler=self.on_due,
            max_deliver=_ATTEMPTS,
            parallel=_AT_ONCE,
        )

    async def follow(self) -> None:
        """Move the timers as the records change, for ever."""
        await self._records.synced()
        with self._records.changes() as changes:
            async for names in changes:
                await self._settle(names)

    async def compare(self) -> None:
        """Look at all timers now, and again whenever the bus was away: its store may be another one."""
        with self._bus.connection.on_reconnect() as reconnected:
            while True:
                reconnected.clear()
                await self._records.synced()
                await self.resync()
                await reconnected.wait()

    async def resync(self) -> None:
        """Compare what is armed on the bus with all records."""
        async with self._settling:
            pending = await self._bus.timers.pending()
            known, self._armed = self._armed, {}
            for purpose in Purpose:
                for name in (name for text, name in pending if text == purpose):
                    self._armed.setdefault(name, {})[purpose] = known.get(name, {}).get(purpose)
            names = self._armed.keys() | {name for name, _ in self._records.items()}
        await self._settle(names)
        log.info("timers.compared", pending=len(pending), workspaces=len(names))

    async def on_due(self, timer: Timer, _: Delivery) -> None:
        """Warn or stop, if the workspace is still the one this timer was armed for."""
        entry = await self._bus.workspaces.get(timer.workspace.name)
        record = entry.value if entry else None
        action = due(timer, record, self._clock())
        log.debug("timer.fired", purpose=timer.purpose, action=action.name)
        if record is None or action is Action.NOTHING:
            return
        if action is Action.WARN:
            await self._commands.warn(record)
        else:
            await self._commands.expire(record)
        LATENESS.labels(purpose=timer.purpose).observe(self._lateness(timer, record))

    async def _settle(self, names: Iterable[str]) -> None:
        async with self._settling:
            slots = asyncio.Semaphore(_AT_ONCE)

            async def settle(name: str) -> None:
                async with slots:
                    await self._settle_one(name)

            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(settle(name))

    async def _settle_one(self, name: str) -> None:
        armed = self._armed.get(name, {})
        change = plan(self._records.value(name), armed, self._clock(), self._warn_before)
        for when, timer in change.arm:
            await self._bus.timers.arm(timer.purpose, name, when, timer)
            armed[timer.purpose] = timer
        for purpose in change.cancel:
            await self._bus.timers.cancel(purpose, name)
            armed.pop(purpose, None)
        if armed:
            self._armed[name] = armed
        else:
            self._armed.pop(name, None)

    def _lateness(self, timer: Timer, record: WorkspaceRecord) -> float:
        when = timer.expires_at
        if timer.purpose is Purpose.WARN:
            when = warns_at(record.ready_at, when, warn_before=self._warn_before)
        return max(0.0, (self._clock() - when).total_seconds())
