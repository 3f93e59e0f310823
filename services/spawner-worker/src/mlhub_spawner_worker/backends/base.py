"""What the worker asks of whatever runs workspaces. One contract test suite holds for every backend."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from mlhub_shared.contracts.queries import Resource
from mlhub_shared.contracts.workspace import Endpoint, Reason, WorkspaceRecord, WorkspaceSecrets
from mlhub_shared.errors import Permanent
from mlhub_spawner_worker.entry import Entry

Report = Callable[[int, str], Awaitable[None]]
"""Takes how far a preparation is, 0 to 100, and a sentence about what it does."""


class BackendError(Permanent):
    """The backend can't do it, and trying again won't help; the text is for the owner of the workspace."""

    def __init__(self, message: str, *, reason: Reason = Reason.BACKEND) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Job:
    """All that one start needs."""

    record: WorkspaceRecord
    secrets: WorkspaceSecrets = field(repr=False)

    @property
    def name(self) -> str:
        """The workspace's name."""
        return self.record.name


@dataclass(frozen=True)
class Running:
    """A workspace that runs."""

    generation: int
    endpoint: Endpoint
    boot: str
    """Of the host or engine it runs on; another one later means that it died with it."""
    image_id: str = ""
    """What its image's name meant when it was started; empty where there are no images."""


@dataclass(frozen=True)
class Exit:
    """How a workspace came to its end."""

    code: int | None
    """Negative: the signal that killed it. None: nobody was there to see."""
    log_tail: str = ""
    again: bool = False
    """It died of something that another start does not meet: its port was taken."""
    reason: Reason = Reason.EXITED
    """OUT_OF_MEMORY if the limit of its memory has ended it."""
    message: str = ""
    """Why, in a sentence for people, where the backend knows more than code and reason tell."""
    with_host: bool = False
    """Its host ended it, and not it alone; for backends whose `boot` can't tell."""


@dataclass(frozen=True)
class Found:
    """What a backend keeps of a workspace, running or not."""

    record: WorkspaceRecord
    """As it was last remembered."""
    running: Running | None


@dataclass(frozen=True)
class Sight:
    """What can be seen of a workspace now."""

    running: bool
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    log_tail: str = ""


@dataclass(frozen=True)
class Listening:
    """A TCP port that programs of a workspace listen on."""

    port: int
    program: str = ""
    """Its name, as far as it can be told."""
    endpoint: Endpoint | None = None
    """Where the proxy reaches it. None: nowhere, it has to be carried to the workspace's loopback."""
    obstacle: str = ""
    """Why it can't be carried there, in a sentence."""
    is_internal: bool = False
    """Of the loopback, and any that was free: for programs among themselves."""


async def no_trouble(known: str) -> str:
    """What `trouble` is where a backend only knows workspaces that run and such that do not."""
    if not known:
        await asyncio.get_running_loop().create_future()
    return ""


class Backend(Protocol):
    """Runs workspaces, by name. Every method may be called again after it failed, was cancelled, or did its work.

    What a backend can't do is a BackendError; what may pass by itself is a Temporary. Nothing else is raised.
    """

    name: str
    """`process`, `docker`, `kubernetes`."""
    cluster: str | None
    """Identity of what every worker of this hub that is set up like this one runs workspaces on, all of them at the
    same time: they are one node together. Behind a `#` are marks, one of which any two of them have in common. None: a
    node of this worker alone."""
    images_allowed: bool
    gpus_counted: bool
    """GPUs are asked for by their number; `gpus` is empty."""
    gpus: tuple[str, ...]
    """Ids of the GPUs of this node, known once it is open."""
    cpu_total: float | None
    """Cores. None: not known."""
    mem_total: int | None
    """Bytes. None: not known."""

    @property
    def gpus_allowed(self) -> bool:
        """It has GPUs to give; known once it is open."""

    @property
    def limits(self) -> str:
        """How far CPU and memory are limited, in a sentence or two."""

    @property
    def boot(self) -> str:
        """Of the host or engine as it runs now."""

    @property
    def out_of_reach(self) -> str:
        """Why a `cluster` has not answered this worker for a while, in a sentence; empty: it does."""

    async def open(self) -> None:
        """Take up what a previous worker left: running workspaces are found, what runs unclaimed is ended."""

    async def aclose(self) -> None:
        """Let go of everything; what runs goes on running."""

    async def inventory(self) -> list[Found]:
        """Everything that runs or is kept here."""

    async def prepare(self, job: Job, report: Report) -> None:
        """Have what can be had before the start: an image that must be fetched, directories."""

    async def start(self, job: Job) -> Running:
        """Start it, at most once: what runs under the same generation is returned, under another one is ended first.

        Where workers share a `cluster` one may be late: what runs under a newer generation stays, which is a Temporary.
        """

    async def wait(self, name: str) -> Exit:
        """Return when it runs no more; at once if it does not run."""

    async def trouble(self, name: str, known: str) -> str:
        """What ails one that runs all the same, in a sentence; empty: nothing. Returns once it is not `known`."""

    async def stop(self, name: str, *, grace: timedelta, up_to: int) -> str:
        """End it and everything that it started; politely for as long as `grace`. Returns the tail of its log.

        Who calls may be late, as in `start`: what was started for a generation after `up_to` is left alone.
        """

    async def erase(self, name: str, *, up_to: int) -> None:
        """Remove all its data, but none that were made for a generation after `up_to`. It has been stopped before."""

    async def remember(self, record: WorkspaceRecord) -> None:
        """Keep the record beside the workspace, if that is there, for the day the bus has lost it."""

    async def describe(self, name: str) -> Sight:
        """What can be seen of it now."""

    async def resources(self) -> list[Resource]:
        """Everything of this deployment that exists here."""

    async def listening(self, name: str) -> list[Listening]:
        """The ports that its programs listen on, in order, but for its own; none if it does not run."""

    def session(self, name: str) -> Entry | None:
        """How to enter it, the same until it is started anew; None if it does not run."""
