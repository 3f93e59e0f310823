"""Images: fetched when they must be, once however many wait for one."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from aiodocker.exceptions import DockerError

from mlhub_shared.contracts.workspace import Reason
from mlhub_shared.errors import MLHubError
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.base import BackendError, Report
from mlhub_spawner_worker.backends.docker import credentials
from mlhub_spawner_worker.backends.docker.configuration import Pull
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errors import Missing, translated

log = structlog.get_logger(__name__)

_SILENCE = 300
"""Seconds without a word of the engine after which a pull is given up."""

_REPORT_EVERY = 1.0
"""Seconds between two reports of a pull."""

_MB = 1_000_000

_DENIED = ("unauthorized", "denied", "forbidden", "authentication required", "no basic auth credentials", "403")

_DONE = {"Pull complete", "Already exists"}


@dataclass(frozen=True)
class Image:
    """An image that is here."""

    name: str
    id: str = ""
    entrypoint: tuple[str, ...] = ()


@dataclass
class Progress:
    """How far a pull is, from what the engine says of each layer."""

    image: str
    _layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bytes that are here, and bytes in all, by layer."""
    _done: set[str] = field(default_factory=set)

    def note(self, said: dict[str, Any]) -> None:
        """Take up one word of the engine."""
        layer, status = said.get("id"), said.get("status", "")
        if not layer or status.startswith("Pulling from"):
            return
        here, total = self._layers.get(layer, (0, 0))
        detail = said.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            here, total = int(detail.get("current", 0)), int(detail["total"])
        elif status == "Download complete" or status in _DONE:
            here = total
        if status in _DONE:
            self._done.add(layer)
        self._layers[layer] = here, total

    @property
    def percent(self) -> int:
        """Of the whole, 0 to 95; what is unpacked can't be told from what is here."""
        here, total = (sum(sizes) for sizes in zip(*self._layers.values(), strict=True)) if self._layers else (0, 0)
        by_size = here / total if total else 0
        by_layer = len(self._done) / len(self._layers) if self._layers else 0
        return int(75 * by_size + 20 * by_layer)

    def __str__(self) -> str:
        if not self._layers:
            return f"Fetching {self.image}"
        here, total = (sum(sizes) for sizes in zip(*self._layers.values(), strict=True))
        layers = f"{len(self._done)} of {len(self._layers)} layers"
        return f"Fetching {self.image}: {layers}, {here / _MB:.0f} of {total / _MB:.0f} MB"


@dataclass
class _Flight:
    progress: Progress
    task: asyncio.Task[None]
    waiting: int = 0


class Images:
    """The images of one engine."""

    def __init__(self, engine: Engine, pull: Pull, *, logins: Path | None = None) -> None:
        """`logins`: a file as `docker login` writes it."""
        self._engine, self._pull, self._logins = engine, pull, logins
        self._flights: dict[str, _Flight] = {}
        self._seen: dict[str, Image] = {}

    async def aclose(self) -> None:
        """Give up what is being fetched."""
        await end_tasks(*(flight.task for flight in self._flights.values()))

    async def find(self, name: str) -> Image | None:
        """The image if it is here."""
        try:
            with translated(f"describe the image {name}"):
                shown = await self._engine.docker.images.inspect(name)
        except Missing:
            return None
        image = Image(name, str(shown["Id"]), tuple((shown.get("Config") or {}).get("Entrypoint") or ()))
        self._seen[name] = image
        return image

    def seen(self, name: str) -> Image:
        """The image as `ensure` saw it last; of one it never saw, the name."""
        return self._seen.get(name) or Image(name)

    async def ensure(self, name: str, *, update: bool, report: Report) -> None:
        """Have the image here; what is here already is used when it can't be fetched anew, and that is said."""
        here = await self.find(name)
        if self._pull == "never":
            if here is None:
                raise _error(f"The image {name} is not on this node, and none is fetched here.")
            if update:
                await report(95, "Images are not fetched here: starting with the one that is on this node")
            return
        if here is not None and self._pull == "missing" and not update:
            return
        try:
            await self._fetch(name, report)
            await self.find(name)
        except BackendError as error:
            if here is None:
                raise
            log.warning("docker.image_not_renewed", image=name, why=str(error))
            await report(95, f"Starting with the image that is on this node, for it can't be renewed: {error}")

    async def _fetch(self, name: str, report: Report) -> None:
        flight = self._flights.get(name)
        if flight is None or flight.task.done():
            progress = Progress(name)
            flight = self._flights[name] = _Flight(progress, asyncio.ensure_future(self._run(progress)))
        flight.waiting += 1
        try:
            told = ""
            while not flight.task.done():
                if (text := str(flight.progress)) != told:
                    await report(flight.progress.percent, text)
                    told = text
                await asyncio.wait({flight.task}, timeout=_REPORT_EVERY)
            await flight.task
        finally:
            flight.waiting -= 1
            if flight.waiting == 0:
                if self._flights.get(name) is flight:
                    del self._flights[name]
                # Nobody wants it any more.
                await end_tasks(flight.task)

    async def _run(self, progress: Progress) -> None:
        name, started = progress.image, time.monotonic()
        # Without a tag the engine would fetch them all.
        wanted = name if _has_tag(name) else f"{name}:latest"
        login = await asyncio.to_thread(credentials.header, name, self._logins)
        headers = {credentials.HEADER: login} if login else None
        try:
            stream = self._engine.stream(
                "images/create", method="POST", silence=_SILENCE, headers=headers, fromImage=wanted
            )
            async with contextlib.aclosing(stream) as said:
                async for word in said:
                    if "error" in word:
                        raise refusal(name, str(word["error"]))
                    progress.note(word)
        except MLHubError as error:
            if isinstance(error.__cause__, DockerError) and error.__cause__.status < 900:
                raise refusal(name, error.__cause__.message) from error
            raise
        log.info("docker.image_fetched", image=name, seconds=round(time.monotonic() - started, 1))


def refusal(image: str, said: str) -> BackendError:
    """Why an image can't be had, in a sentence, from what the engine says."""
    lower = said.lower()
    if "no space left on device" in lower:
        return BackendError(f"The disk of this node is full: the image {image} can't be fetched.")
    if any(words in lower for words in _DENIED):
        return _error(f"The registry does not let this node have the image {image}, or there is no such image.")
    if any(words in lower for words in ("not found", "manifest unknown", "name unknown", "404")):
        return _error(f"There is no image {image}.")
    if "invalid reference format" in lower or "invalid tag" in lower:
        return _error(f"{image} is no name of an image.")
    if any(words in lower for words in ("dial tcp", "timeout", "canceled", "no such host", "eof", "tls", "connection")):
        return _error(f"The registry of the image {image} does not answer.")
    return _error(f"The image {image} can't be fetched: {said.strip()[:300]}")


def _error(message: str) -> BackendError:
    return BackendError(message, reason=Reason.IMAGE)


def _has_tag(name: str) -> bool:
    return "@" in name or ":" in name.rpartition("/")[2]
