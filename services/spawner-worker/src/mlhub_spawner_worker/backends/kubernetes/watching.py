"""Following one kind of things, for as long as the worker lives: listed once, then told of every change.

A watch that ends goes on from the last version that was seen, over an outage of the API server too. Only when the
server does not know any more what happened since is everything listed again.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.errors import MLHubError, Temporary
from mlhub_shared.tasks import end_tasks, stop_if_cancelled
from mlhub_spawner_worker.backends.kubernetes.client import Json, Kind, KubeClient
from mlhub_spawner_worker.backends.kubernetes.refusals import Expired, Forbidden
from mlhub_spawner_worker.backends.kubernetes.sightings import version_of

log = structlog.get_logger(__name__)

_TOO_SHORT = 1.0
"""Seconds. A watch that ends sooner, without a word, is an error: whatever answers would be asked without end."""


@dataclass(frozen=True)
class Pace:
    """How long a watch lasts."""

    lasting: timedelta = timedelta(seconds=60)
    """After that the server ends it, and it goes on from there."""
    silence: timedelta = timedelta(seconds=90)
    """More than `lasting`: after that the connection is dead."""
    most: timedelta = timedelta(seconds=10)
    """Between two tries."""
    patience: timedelta = timedelta(seconds=20)
    """How long nothing need be heard until that is said: longer than an API server's restart."""


@dataclass(frozen=True)
class Followed:
    """What is followed, and who wants to know."""

    kind: Kind
    listed: Callable[[], Awaitable[str]]
    """Look at everything there is; returns the version to go on from."""
    changed: Callable[[str, Json], None]
    """Takes ADDED, MODIFIED or DELETED, and the thing."""
    labels: str = ""
    fields: str = ""


class Watch:
    """One followed kind."""

    def __init__(self, client: KubeClient, followed: Followed, pace: Pace) -> None:
        self._client, self._followed, self._pace = client, followed, pace
        self._version: str | None = None
        """None: everything is to be listed."""
        self._task: asyncio.Task[None] | None = None
        self._backoff = Backoff(first=0.2, most=pace.most.total_seconds())
        self.synced = asyncio.Event()
        """Set once everything has been listed."""
        self.trouble = ""
        """Why nothing is heard now, in a sentence."""
        self._unheard_since: float | None = None

    @property
    def out_of_reach(self) -> str:
        """Why nothing has been heard for a while, or ever; empty: the API answers."""
        if self._unheard_since is None:
            return ""
        is_short = time.monotonic() - self._unheard_since < self._pace.patience.total_seconds()
        return "" if is_short and self.synced.is_set() else self.trouble

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.ensure_future(self._run())

    async def aclose(self) -> None:
        """Stop following."""
        if self._task is not None:
            await end_tasks(self._task)

    async def _run(self) -> None:
        while True:
            stop_if_cancelled()
            try:
                await self._follow()
            except Expired:
                # By itself no reason to wait; again and again is one.
                self._version = None
                await self._backoff.sleep()
            except Temporary as error:
                if isinstance(error, Forbidden):
                    # Without the verb for watching, lists in between must do.
                    self._version = None
                self._complain(str(error))
                await self._backoff.sleep(at_least=error.delay)
            except MLHubError as error:
                self._version = None
                self._complain(str(error))
                await self._backoff.sleep()
            except Exception:
                log.exception("kubernetes.watch_failed", kind=self._followed.kind.resource)
                self._version = None
                await self._backoff.sleep()

    async def _follow(self) -> None:
        if self._version is None:
            self._version = await self._followed.listed()
            self._unheard_since = None
            self.synced.set()
            log.info("kubernetes.listed", kind=self._followed.kind.resource)
        begun, is_told = time.monotonic(), False
        stream = self._client.watch(
            self._followed.kind,
            self._version,
            labels=self._followed.labels,
            fields=self._followed.fields,
            lasting=int(self._pace.lasting.total_seconds()) or 1,
            silence=self._pace.silence.total_seconds(),
            opened=self._opened,
        )
        async with contextlib.aclosing(stream) as events:
            async for event in events:
                is_told = True
                self._backoff.reset()
                self._take(event)
        if not is_told:
            await self._wonder(time.monotonic() - begun)
        self._backoff.reset()

    async def _wonder(self, seconds: float) -> None:
        """Why a watch ended without a word, after so many seconds."""
        if seconds < _TOO_SHORT:
            raise Temporary("The Kubernetes API ends every watch at once")
        # Of a version that is still to come nothing is told, however long that takes.
        newest = await self._client.version(self._followed.kind, fields=self._followed.fields)
        if 0 < version_of({"resourceVersion": newest}) < version_of({"resourceVersion": self._version}):
            raise Expired("The Kubernetes API has its things from a backup")

    def _take(self, event: Json) -> None:
        thing: dict[str, Any] = event["object"]
        if event.get("type") != "BOOKMARK":
            self._followed.changed(str(event.get("type")), thing)
        metadata = thing.get("metadata") or {}
        if version_of(metadata):
            self._version = str(metadata["resourceVersion"])

    def _opened(self) -> None:
        if self.trouble:
            log.info("kubernetes.watching_again", kind=self._followed.kind.resource)
        self.trouble = ""
        self._unheard_since = None

    def _complain(self, why: str) -> None:
        if why != self.trouble:
            log.warning("kubernetes.not_watching", kind=self._followed.kind.resource, why=why)
        self.trouble = why
        self._unheard_since = self._unheard_since or time.monotonic()
