"""The docker backend: one container for each workspace."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import structlog

from mlhub_shared.contracts.policy import Profile
from mlhub_shared.contracts.queries import Resource
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import MLHubError, Temporary
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.base import (
    BackendError,
    Exit,
    Found,
    Job,
    Listening,
    Report,
    Running,
    Sight,
    no_trouble,
)
from mlhub_spawner_worker.backends.docker import gpus, labels
from mlhub_spawner_worker.backends.docker.adoption import adopt, is_ours, life_of, refuse_stranger
from mlhub_spawner_worker.backends.docker.body import Plan, container
from mlhub_spawner_worker.backends.docker.configuration import DockerSettings
from mlhub_spawner_worker.backends.docker.containers import Containers, Shown
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errors import Taken
from mlhub_spawner_worker.backends.docker.exec import ContainerPlace
from mlhub_spawner_worker.backends.docker.gate import Gate
from mlhub_spawner_worker.backends.docker.images import Images
from mlhub_spawner_worker.backends.docker.inventory import resources
from mlhub_spawner_worker.backends.docker.lives import Lives
from mlhub_spawner_worker.backends.docker.networks import UserNetworks
from mlhub_spawner_worker.backends.docker.place import Networks
from mlhub_spawner_worker.backends.docker.shelf import Shelf
from mlhub_spawner_worker.backends.docker.volumes import Volumes
from mlhub_spawner_worker.backends.inside import ports
from mlhub_spawner_worker.entry import Entry

log = structlog.get_logger(__name__)

T = TypeVar("T")

_PATIENCE = timedelta(seconds=10)
"""For what is under way when the worker ends."""

_SWEEP_EVERY = timedelta(minutes=30)
"""Between two looks for kept volumes whose time is over."""

_LIMITS = "CPU, memory, processes and GPUs are limited by the container engine"


class DockerBackend:
    """Implements Backend. All about one workspace happens under its lock, and to its end, whoever stops waiting."""

    name = "docker"
    cluster: str | None = None
    out_of_reach = ""
    images_allowed = True
    gpus_counted = False

    def __init__(self, settings: DockerSettings, *, networks: Callable[[Engine], Networks] | None = None) -> None:
        hub = settings.hub
        self._settings = settings
        self._profiles = {profile.name: profile for profile in settings.profiles}
        self.engine = Engine(settings.engine_url, hub, cert_dir=settings.cert_dir)
        self._shelf = Shelf(settings.data_dir)
        self._containers = Containers(self.engine, hub)
        self._lives = Lives(self.engine, self._containers)
        self._images = Images(self.engine, settings.pull, logins=settings.registry_logins)
        self._volumes = Volumes(self.engine, hub, keep=settings.keep_volumes)
        self._networks = networks(self.engine) if networks is not None else _user_networks(self.engine, settings)
        self._gate = Gate(settings.engine_calls)
        self._locks: dict[str, asyncio.Lock] = {}
        self._starting: Counter[str] = Counter()
        """Users whose networks are about to be needed."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._opened = contextlib.AsyncExitStack()
        self._sweeper: list[asyncio.Task[None]] = []
        self.gpus: tuple[str, ...] = ()
        self.cpu_total: float | None = None
        self.mem_total: int | None = None

    @property
    def gpus_allowed(self) -> bool:
        """There are some."""
        return bool(self.gpus)

    @property
    def boot(self) -> str:
        """Of the engine as it was last seen."""
        return self.engine.boot

    @property
    def limits(self) -> str:
        """What the engine limits, and what people must know of the networks."""
        caveat = self._networks.caveat
        return f"{_LIMITS}. {caveat}" if caveat else _LIMITS

    async def open(self) -> None:
        """Take the data directory, look at the engine, adopt every container and volume of this hub."""
        async with contextlib.AsyncExitStack() as opened:
            await asyncio.to_thread(self._shelf.open)
            opened.callback(self._shelf.close)
            await self.engine.open()
            opened.push_async_callback(self.engine.aclose)
            self._read_info()
            opened.push_async_callback(self._lives.aclose)
            await adopt(self._settings.hub, self._containers, self._volumes, self._lives, self._shelf)
            opened.push_async_callback(self._networks.aclose)
            await self._networks.open()
            self._opened = opened.pop_all()
        self.engine.events.start()
        self._sweeper.append(asyncio.ensure_future(self._sweep()))
        log.info("docker.opened", engine=self.engine.info.get("ServerVersion"), gpus=len(self.gpus))

    async def aclose(self) -> None:
        """Let go: what runs goes on running. Starts under way are waited for."""
        await self._images.aclose()
        await end_tasks(*self._sweeper)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_PATIENCE.total_seconds())
        await end_tasks(*self._tasks)
        await self._opened.aclose()

    async def inventory(self) -> list[Found]:
        """Every workspace with a record here, as the engine shows it now."""
        await self._lives.look()
        found = []
        for record in await asyncio.to_thread(self._shelf.all):
            life = self._lives.running(record.name)
            found.append(Found(record, life.running if life else None))
        return found

    async def prepare(self, job: Job, report: Report) -> None:
        """Have the image, and keep the record."""
        await self._images.ensure(self._image_name(job), update=job.record.spec.update, report=report)
        # Before anything is made: whose it is must be known when a start that fails is cleared away.
        await self._alone(job.name, lambda: asyncio.to_thread(self._keep, job.record))

    async def start(self, job: Job) -> Running:
        """Make its network, volume and container, and start it, unless it runs already."""
        # In line before it has the lock: who waits here can still be stopped at once.
        async with self._gate.turn():
            return await self._alone(job.name, lambda: self._start(job))

    async def wait(self, name: str) -> Exit:
        """Wait for the end of its container."""
        return await self._lives.wait(name)

    async def trouble(self, name: str, known: str) -> str:
        """None that an engine would tell of."""
        return await no_trouble(known)

    async def stop(self, name: str, *, grace: timedelta, up_to: int) -> str:
        """End and remove its container; its volume stays."""
        return await self._alone(name, lambda: self._stop(name, grace, up_to))

    async def erase(self, name: str, *, up_to: int) -> None:
        """Remove its volume, or keep it for as long as the policy says, and forget it."""
        await self._alone(name, lambda: self._erase(name, up_to))

    async def remember(self, record: WorkspaceRecord) -> None:
        """Keep the record on disk if the workspace is known; a full disk must not stop what the record asks for."""
        try:
            await self._alone(record.name, lambda: asyncio.to_thread(self._remember, record))
        except OSError as error:
            log.warning("docker.not_remembered", workspace=record.name, error=error.strerror)

    async def describe(self, name: str) -> Sight:
        """What the engine counts for its container."""
        life = self._lives.running(name)
        if life is None:
            last = self._lives.get(name)
            return Sight(False, log_tail=last.end.result().log_tail if last else "")
        (cpu, memory), tail = await asyncio.gather(
            self._containers.usage(life.container), self._containers.tail(life.container)
        )
        return Sight(True, cpu, memory, tail)

    async def resources(self) -> list[Resource]:
        """Containers, volumes and networks."""
        return await resources(self.engine, self._settings.hub)

    async def listening(self, name: str) -> list[Listening]:
        """By its kernel's tables, which are read inside it."""
        life = self._lives.running(name)
        if life is None:
            return []
        address = None if self._settings.reach.reach == "published" else life.running.endpoint.host
        around = ports.Surroundings(life.port, address)
        return await ports.listening(ContainerPlace(self.engine, life.container), around)

    def session(self, name: str) -> Entry | None:
        """A way into its container."""
        return self._lives.enter(name)

    # Under the workspace's lock

    async def _start(self, job: Job) -> Running:
        user = job.record.workspace.user
        if not self.engine.events.connected.is_set():
            await self.engine.look_at_boot()
        self._starting[user] += 1
        try:
            running = await self._make(job) or await self._make(job)
        finally:
            self._starting[user] -= 1
        if running is None:
            raise Temporary("something else takes the container's name again and again")
        return running

    async def _make(self, job: Job) -> Running | None:
        """Its container as it runs; None if another one had to go first."""
        try:
            made = await self._containers.create(job.name, container(await self._plan(job)))
        except Taken:
            return await self._make_room(job)
        with self._lives.expecting(made):
            try:
                await self._containers.start(made)
            except BackendError:
                await self._containers.remove(made)
                raise
            shown = await self._containers.find(made)
            if shown is None:
                raise Temporary("the container was removed as soon as it was started")
            return self._follow(shown)

    async def _make_room(self, job: Job) -> Running | None:
        """What holds the name: kept if it is this very start, ended if it is an older one."""
        shown = await self._containers.find(job.name)
        if shown is None:
            return None
        refuse_stranger(shown, job.name, self._settings.hub)
        if shown.runs and shown.running.generation == job.record.generation:
            life = self._lives.running(job.name)
            if life is not None and life.container == shown.id:
                return life.running
            with self._lives.expecting(shown.id):
                # Once more: nobody was told of a death since the first look.
                again = await self._containers.find(shown.id)
                return self._follow(again) if again is not None else None
        await self._end(shown, timedelta(0))
        return None

    def _follow(self, shown: Shown) -> Running:
        """What it runs as; its end, which may have come already, will be known."""
        life = self._lives.begin(life_of(shown))
        if not shown.runs:
            self._lives.settle_soon(life)
        return life.running

    async def _stop(self, name: str, grace: timedelta, up_to: int) -> str:
        shown = await self._containers.find(name)
        if shown is not None and is_ours(shown, name, self._settings.hub):
            if shown.runs_since(up_to):
                return ""
            await self._end(shown, grace)
        self._release_soon(await self._user_of(name))
        last = self._lives.get(name)
        if last is not None and not last.end.done():
            # Removed by somebody else, and nobody has told yet.
            await self._lives.settle(last)
        return last.end.result().log_tail if last is not None and last.end.done() else ""

    async def _end(self, shown: Shown, grace: timedelta) -> None:
        life = self._lives.get(shown.name)
        if life is not None:
            life.is_ending = True
        if shown.runs:
            await self._containers.end(shown.id, grace=grace)
        if life is not None and life.container == shown.id:
            await self._lives.settle(life)
            if not life.end.done():
                raise Temporary("the container does not end")
        await self._containers.remove(shown.id)

    async def _erase(self, name: str, up_to: int) -> None:
        user = await self._user_of(name)
        shown = await self._containers.find(name)
        if shown is not None and is_ours(shown, name, self._settings.hub):
            if shown.runs_since(up_to):
                return
            await self._end(shown, timedelta(0))
        await self._volumes.erase(name)
        self._lives.forget(name)
        await asyncio.to_thread(self._shelf.remove, name)
        self._release_soon(user)

    # Parts

    async def _plan(self, job: Job) -> Plan:
        place, volume = await asyncio.gather(self._networks.attach(job.record.workspace.user), self._volume(job))
        return Plan(
            job=job,
            profile=self._profile(job),
            image=self._images.seen(self._image_name(job)),
            place=place,
            volume=volume,
            boot=self.engine.boot,
            cores=self.cpu_total,
            memory=self.mem_total,
            max_log_bytes=self._settings.max_log_bytes,
        )

    async def _volume(self, job: Job) -> str | None:
        record = job.record
        if not record.spec.is_mount_volume:
            return None

        async def look() -> None:
            # An empty volume would hide that what holds the name may be the only copy of somebody's files.
            if shown := await self._containers.find(job.name):
                refuse_stranger(shown, job.name, self._settings.hub)

        return await self._volumes.ensure(record.workspace, base_url=record.base_url, before_making=look)

    def _profile(self, job: Job) -> Profile:
        wanted = job.record.spec.profile
        profile = self._profiles.get(wanted) if wanted else next(iter(self._profiles.values()), None)
        if profile is None:
            raise BackendError(f"The profile {wanted} is not there any more; please choose another one.")
        return profile

    def _image_name(self, job: Job) -> str:
        return job.record.spec.image or self._profile(job).image

    def _read_info(self) -> None:
        info = self.engine.info
        self.gpus = gpus.found(self._settings.gpus, info)
        self.cpu_total = float(info["NCPU"]) if info.get("NCPU") else None
        self.mem_total = int(info["MemTotal"]) if info.get("MemTotal") else None
        if not self.gpus and self._settings.gpus == "auto" and gpus.knows_gpus(info):
            log.warning("docker.gpus_not_counted", remedy="name them: MLHUB_SPAWNER_WORKER_GPUS=0,1")

    def _keep(self, record: WorkspaceRecord) -> None:
        try:
            self._shelf.write(record)
        except OSError as error:
            raise BackendError(f"Its record can't be kept on this node: {error.strerror}") from error

    def _remember(self, record: WorkspaceRecord) -> None:
        if self._shelf.has(record.name):
            self._shelf.write(record)

    async def _user_of(self, name: str) -> str | None:
        """None: nothing is known of that workspace."""
        if life := self._lives.get(name):
            return life.user
        record = await asyncio.to_thread(self._shelf.read, name)
        return record.workspace.user if record else None

    def _release_soon(self, user: str | None) -> None:
        if user is not None:
            self._run(self._release(user))

    async def _release(self, user: str) -> None:
        try:
            left = await self._containers.list(user=user)
            # The first ML Hub's containers, which carry no generation, are on none of these networks.
            if not any(labels.GENERATION in shown.labels for shown in left) and self._starting[user] == 0:
                await self._networks.released(user)
        except MLHubError as error:
            # Networks that nobody needs go at the next start of the worker.
            log.info("docker.network_not_released", user=user, why=str(error))

    async def _sweep(self) -> None:
        while True:
            try:
                await self._volumes.sweep()
            except MLHubError as error:
                log.warning("docker.volumes_not_swept", why=str(error))
            await asyncio.sleep(_SWEEP_EVERY.total_seconds())

    async def _alone(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        async def locked() -> T:
            async with self._locks.setdefault(name, asyncio.Lock()):
                return await work()

        # To its end: a container that is made while nobody waits any more must not escape the next stop.
        return await asyncio.shield(self._run(locked()))

    def _run(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _user_networks(engine: Engine, settings: DockerSettings) -> Networks:
    return UserNetworks(engine, settings.hub, settings.reach, engine_url=settings.engine_url)
