"""The kubernetes backend: one pod for each workspace, in one namespace."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import structlog

from mlhub_shared.contracts.cluster import CONTAINER
from mlhub_shared.contracts.queries import Resource
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.errors import MLHubError
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.base import Exit, Found, Job, Listening, Report, Running, Sight
from mlhub_spawner_worker.backends.inside import ports
from mlhub_spawner_worker.backends.kubernetes import exits, marks
from mlhub_spawner_worker.backends.kubernetes.client import EVENTS, PODS, Json, KubeClient
from mlhub_spawner_worker.backends.kubernetes.configuration import KubernetesSettings
from mlhub_spawner_worker.backends.kubernetes.ending import Ending, Stranger
from mlhub_spawner_worker.backends.kubernetes.exec import KubernetesPlace, PodEntry
from mlhub_spawner_worker.backends.kubernetes.keeping import BOOT, Keeping, running
from mlhub_spawner_worker.backends.kubernetes.making import Making
from mlhub_spawner_worker.backends.kubernetes.notes import Notes
from mlhub_spawner_worker.backends.kubernetes.pods import Pods
from mlhub_spawner_worker.backends.kubernetes.sightings import Pod, Up
from mlhub_spawner_worker.backends.kubernetes.starting import Starting
from mlhub_spawner_worker.backends.kubernetes.stream import StreamClient
from mlhub_spawner_worker.backends.kubernetes.watching import Followed, Pace, Watch
from mlhub_spawner_worker.entry import Entry

log = structlog.get_logger(__name__)

T = TypeVar("T")

_PATIENCE = timedelta(seconds=10)
"""For what is under way when the worker ends, and for the API's first word when it begins."""

_LIMITS = "CPU, memory and GPUs are limited by the cluster, and processes as its nodes are set up"


class KubernetesBackend:
    """Implements Backend. What makes or ends a workspace's things is done under its lock, and to its end."""

    name = "kubernetes"
    images_allowed = True
    gpus_allowed = True
    gpus_counted = True
    gpus: tuple[str, ...] = ()
    cpu_total: float | None = None
    mem_total: int | None = None
    limits = _LIMITS
    boot = BOOT

    def __init__(self, settings: KubernetesSettings, *, pace: Pace | None = None) -> None:
        hub, pace = settings.hub, pace or Pace()
        self._settings = settings
        self.cluster: str | None = None
        """Known once it is open: all workers of one hub that use one namespace work together."""
        self.client = KubeClient(kubeconfig=settings.kubeconfig, namespace=settings.namespace)
        self._notes = Notes()
        self._pods = Pods(self.client, marks.selector(hub), left=self._forget)
        followed = Followed(PODS, self._pods.look, self._pods.changed, labels=marks.selector(hub))
        self._watch = Watch(self.client, followed, pace)
        followed = Followed(EVENTS, self._newest_event, self._heard)
        self._events = Watch(self.client, followed, pace)
        self._ending = Ending(self.client, self._pods, gone_within=settings.gone_within)
        self._making = Making(self.client, self._pods, self._ending, settings)
        self._starting = Starting(
            self._pods,
            self._notes,
            prepare_timeout=settings.prepare_timeout,
            image_patience=settings.image_patience,
        )
        self._keeping = Keeping(self.client, self._pods, hub)
        self._streams: StreamClient | None = None
        self._entries: dict[str, tuple[str, Entry]] = {}
        """The ways in that somebody has wanted, with the uids of their pods."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Of names that something is done with now."""
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def out_of_reach(self) -> str:
        """Why nothing has been heard of pods for a while."""
        return self._watch.out_of_reach

    async def open(self) -> None:
        """Begin to follow pods and events; an API server that is away is waited for, but not for long."""
        await self.client.open()
        self.cluster = f"{self._settings.hub}@{self.client.namespace}#{','.join(self.client.marks)}"
        self._watch.start()
        self._events.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._watch.synced.wait(), _PATIENCE.total_seconds())
        if self._settings.keep_volumes:
            log.warning("kubernetes.volumes_not_kept", remedy="a storage class with reclaimPolicy: Retain")
        log.info("kubernetes.opened", namespace=self.client.namespace, synced=self._watch.synced.is_set())

    async def aclose(self) -> None:
        """Let go: what runs goes on running. What is being made is waited for."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_PATIENCE.total_seconds())
        await end_tasks(*self._tasks)
        await self._watch.aclose()
        await self._events.aclose()
        if self._streams is not None:
            await self._streams.aclose()
        await self.client.aclose()

    async def inventory(self) -> list[Found]:
        """Every workspace that has a pod or a volume, as the API has it now."""
        return await self._keeping.inventory()

    async def prepare(self, job: Job, report: Report) -> None:
        """Have its pod run: where there is room for it, and whether its image is there, shows only then."""
        await self._up(job, report)

    async def start(self, job: Job) -> Running:
        """Have its pod run, if it has not been prepared."""
        pod = await self._up(job, _unheard)
        self._starting.forget(job.name, up_to=job.record.generation)
        return running(pod)

    async def wait(self, name: str) -> Exit:
        """Wait for the end of its pod, as the API tells it: that nothing is heard is no end."""
        with self._pods.following(name) as changed:
            await self._watch.synced.wait()
            while True:
                changed.clear()
                pod = self._pods.get(name)
                if pod is None and (end := self._pods.end(name)) is not None:
                    return end.exit
                if pod is None and await self._ending.find(name) is None:
                    # What another worker has made may not have been told yet, so the API was asked.
                    end = self._pods.end(name)
                    return end.exit if end is not None else exits.GONE
                if pod is not None and (how := await self._end_of(pod)) is not None:
                    return how
                await changed.wait()

    async def trouble(self, name: str, known: str) -> str:
        """Its node may not answer."""
        with self._pods.following(name) as changed:
            while True:
                changed.clear()
                pod = self._pods.get(name)
                now = pod.trouble if pod is not None else ""
                if now != known:
                    return now
                await changed.wait()

    async def stop(self, name: str, *, grace: timedelta, up_to: int) -> str:
        """End and remove its pod; its volume stays."""
        self._starting.forget(name, up_to=up_to)

        def goes(pod: Pod) -> bool:
            return pod.generation <= up_to

        try:
            pod, tail = await self._alone(name, lambda: self._ending.begin(name, goes, grace=grace))
        except Stranger:
            return ""
        if pod is not None:
            await self._ending.gone(pod, grace=grace)
        end = self._pods.end(name)
        return tail or (end.exit.log_tail if end is not None else "")

    async def erase(self, name: str, *, up_to: int) -> None:
        """Remove its volume, and all that goes with it."""
        await self.stop(name, grace=timedelta(0), up_to=up_to)
        await self._alone(name, lambda: self._ending.erase(name, up_to=up_to))
        self._keeping.forget(name)
        self._pods.forget(name)

    async def remember(self, record: WorkspaceRecord) -> None:
        """Keep the record beside its volume, once it is settled."""
        await self._keeping.remember(record)

    async def describe(self, name: str) -> Sight:
        """Whether it runs, and its log."""
        pod = self._pods.get(name)
        if pod is not None:
            return Sight(isinstance(pod.sighting, Up), log_tail=await self._ending.tail(pod))
        end = self._pods.end(name)
        return Sight(False, log_tail=end.exit.log_tail if end is not None else "")

    async def resources(self) -> list[Resource]:
        """Pods and volumes."""
        return await self._keeping.resources()

    async def listening(self, name: str) -> list[Listening]:
        """By its kernel's tables, which are read inside it."""
        pod = self._pods.get(name)
        if pod is None or not isinstance(pod.sighting, Up):
            return []
        return await ports.listening(self._place(name), ports.Surroundings(pod.port, pod.address, needs_python=False))

    def session(self, name: str) -> Entry | None:
        """A way into its pod."""
        pod = self._pods.get(name)
        if pod is None or not isinstance(pod.sighting, Up):
            return None
        uid, entry = self._entries.get(name, ("", None))
        if entry is None or uid != pod.uid:
            entry = PodEntry(self._place(name), home=pod.home or None)
            self._entries[name] = (pod.uid, entry)
        return entry

    # Parts

    def _place(self, name: str) -> KubernetesPlace:
        if self._streams is None:
            # Of its own: people hold sessions for hours.
            self._streams = StreamClient(self.client.configuration)
        return KubernetesPlace(self._streams, self.client.namespace, name, CONTAINER)

    def _forget(self, name: str) -> None:
        """What its pod needed, which is gone, whichever worker has ended it."""
        self._making.forget(name)
        self._entries.pop(name, None)

    async def _up(self, job: Job, report: Report) -> Pod:
        pod = await self._starting.made(job, lambda: self._alone(job.name, lambda: self._making.make(job)), report)
        return await self._starting.up(job, pod, report, lambda: self._watch.trouble)

    async def _end_of(self, pod: Pod) -> Exit | None:
        """How it ended, with the last lines of its log, as long as these can be had; None: it has not."""
        end = self._pods.end(pod.name)
        if end is not None and end.uid == pod.uid:
            return end.exit
        how = self._pods.ended(pod)
        if how is None:
            return None
        how = replace(how, log_tail=await self._ending.tail(pod))
        self._pods.remember(pod, how)
        return how

    async def _newest_event(self) -> str:
        # What was before is of no interest to a start that is under way.
        return await self.client.version(EVENTS)

    def _heard(self, _: str, event: Json) -> None:
        if (name := self._notes.heard(event)) is not None:
            self._pods.nudge(name)

    async def _alone(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        async def locked() -> T:
            async with self._locks.setdefault(name, asyncio.Lock()):
                return await work()

        # To its end: a pod that is made while nobody waits any more must not escape the next stop.
        return await asyncio.shield(self._run(locked()))

    def _run(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Nobody may be left to be told; what went wrong shows again when it is repeated.
        task.add_done_callback(_told)
        return task


async def _unheard(_: int, __: str) -> None:
    return


def _told(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled() and isinstance(error := task.exception(), MLHubError):
        log.debug("kubernetes.step_failed", why=str(error))
