"""Waiting for a pod to run: for room, for its image, for whatever the cluster does, and telling of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.workspace import Reason
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.base import BackendError, Job, Report
from mlhub_spawner_worker.backends.kubernetes.notes import Notes
from mlhub_spawner_worker.backends.kubernetes.pods import Pods
from mlhub_spawner_worker.backends.kubernetes.refusals import NoRoom
from mlhub_spawner_worker.backends.kubernetes.sightings import (
    CREATED,
    FOR_ROOM,
    Ended,
    Impossible,
    Pod,
    Up,
    Waiting,
)

_SOONER = timedelta(seconds=2)
"""Than whoever waits for it loses patience: what it waits for in vain is told rather than that it took too long."""

_LOOK_AGAIN = 5.0
"""Seconds after which people are told anew why nothing happens, if that has changed."""


class Starting:
    """Follows starts until they run or can't."""

    def __init__(self, pods: Pods, notes: Notes, *, prepare_timeout: timedelta, image_patience: timedelta) -> None:
        self._pods, self._notes = pods, notes
        self._patience = prepare_timeout - min(_SOONER, prepare_timeout / 10)
        self._image_patience = image_patience.total_seconds()
        self._deadlines: dict[str, tuple[int, float]] = {}
        """Of starts under way, by name: their generation, and when patience is over."""

    def forget(self, name: str, *, up_to: int) -> None:
        """No generation until that one is about to start any more."""
        if self._deadlines.get(name, (0, 0.0))[0] <= up_to:
            self._deadlines.pop(name, None)

    async def made(self, job: Job, make: Callable[[], Awaitable[Pod]], report: Report) -> Pod:
        """Its pod, as soon as the namespace has room for it."""
        deadline, backoff = self._deadline(job), Backoff(first=0.5, most=5)
        while True:
            try:
                return await make()
            except NoRoom as error:
                if time.monotonic() > deadline:
                    raise BackendError(str(error), reason=Reason.NO_ROOM) from error
                await report(FOR_ROOM, str(error))
                await backoff.sleep()

    async def up(self, job: Job, pod: Pod, report: Report, trouble: Callable[[], str]) -> Pod:
        """The same pod once it runs; `trouble` tells why nothing can be heard of it now."""
        deadline, hopeless_since, said = self._deadline(job), None, None
        with self._pods.following(pod.name) as changed:
            while True:
                changed.clear()
                current = self._pods.get(pod.name)
                if current is None or current.uid != pod.uid:
                    raise Temporary("Its pod was removed by somebody else before it ran")
                waiting = self._waiting(current)
                if waiting is None:
                    self._notes.forget(pod.uid)
                    return current
                if waiting.reason is not Reason.IMAGE:
                    hopeless_since = None
                elif waiting.is_hopeless:
                    hopeless_since = hopeless_since or time.monotonic()
                until = min(deadline, hopeless_since + self._image_patience) if hopeless_since else deadline
                told = (waiting.percent, trouble() or waiting.message)
                if said is not None and said[0] == told[0] and said[1].startswith(told[1]):
                    told = said  # It is less than what was told already.
                if time.monotonic() > until:
                    raise BackendError(told[1], reason=waiting.reason)
                if told != said:
                    said = told
                    await report(*told)
                await _heard(changed, until)

    def _waiting(self, pod: Pod) -> Waiting | None:
        """What it waits for; None: for nothing."""
        match pod.sighting:
            case Impossible(message=message, reason=reason):
                raise BackendError(message, reason=reason)
            case Ended(with_node=True, message=message):
                raise Temporary(message)
            case Ended(reason=reason, message=message) if not pod.address:
                raise BackendError(message or "It ended before it could be reached", reason=reason)
            case Waiting() if pod.is_leaving:
                return Waiting("Its pod is being removed by somebody else", FOR_ROOM)
            case Waiting() as waiting:
                return self._notes.told(pod, waiting)
            case Up() if not pod.address:
                return Waiting("Waiting for its address", CREATED)
        return None

    def _deadline(self, job: Job) -> float:
        generation, deadline = self._deadlines.get(job.name, (0, 0.0))
        if generation != job.record.generation:
            deadline = time.monotonic() + self._patience.total_seconds()
            self._deadlines[job.name] = (job.record.generation, deadline)
        return deadline


async def _heard(changed: asyncio.Event, until: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, min(until - time.monotonic() + 0.01, _LOOK_AGAIN))):
            await changed.wait()
    except TimeoutError:
        return
