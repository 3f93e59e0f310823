"""The pods of this hub as the API last told them, and who waits for one of them to change."""

import asyncio
import contextlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import structlog

from mlhub_spawner_worker.backends.base import Exit
from mlhub_spawner_worker.backends.kubernetes import exits
from mlhub_spawner_worker.backends.kubernetes.client import PODS, Json, KubeClient
from mlhub_spawner_worker.backends.kubernetes.sightings import Pod, seen, version_of

log = structlog.get_logger(__name__)

_MOST_ENDS = 1000
"""Ends that are remembered, beside those that somebody waits for."""


@dataclass(frozen=True)
class End:
    """How the last pod of a name ended."""

    uid: str
    exit: Exit


class Pods:
    """Reduced views, never whole objects: there are thousands."""

    def __init__(self, client: KubeClient, selector: str, *, left: Callable[[str], None]) -> None:
        """`left` is told the name of each pod that is gone."""
        self._client, self._selector, self._left = client, selector, left
        self._pods: dict[str, Pod] = {}
        self._ends: dict[str, End] = {}
        self._aging: OrderedDict[str, None] = OrderedDict()
        """Names with an end that nobody waits for: the first goes first."""
        self._ending: set[str] = set()
        """Uids of those that the worker itself has deleted."""
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def get(self, name: str) -> Pod | None:
        """A workspace's pod."""
        return self._pods.get(name)

    def end(self, name: str) -> End | None:
        """How the last one ended, if that was seen."""
        return self._ends.get(name)

    @contextlib.contextmanager
    def following(self, name: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change of that pod; whoever waits for it clears it."""
        changed = asyncio.Event()
        self._waiting[name].add(changed)
        self._aging.pop(name, None)
        try:
            yield changed
        finally:
            self._waiting[name].discard(changed)
            if not self._waiting[name]:
                del self._waiting[name]
                self._age(name)

    def nudge(self, name: str) -> None:
        """Something else about that pod has changed."""
        for changed in self._waiting.get(name, ()):
            changed.set()

    def deletes(self, uid: str) -> None:
        """The worker itself is about to delete it."""
        self._ending.add(uid)

    def could_not_delete(self, uid: str) -> None:
        """The cluster would not have it: whatever ends it now, it was not the worker."""
        self._ending.discard(uid)

    def ended(self, pod: Pod, *, is_gone: bool = False) -> Exit | None:
        """How it ended; None: it has not."""
        return exits.exit_of(pod, is_gone=is_gone, is_ours=pod.uid in self._ending)

    def remember(self, pod: Pod, how: Exit) -> None:
        """Keep how it ended: its pod will be gone soon."""
        self._ends[pod.name] = End(pod.uid, how)
        if pod.name not in self._waiting:
            self._age(pod.name)

    def forget(self, name: str) -> None:
        """Nothing of it is of interest any more."""
        self._ends.pop(name, None)
        self._aging.pop(name, None)

    def _age(self, name: str) -> None:
        if name in self._ends:
            self._aging[name] = None
            self._aging.move_to_end(name)
        if len(self._aging) > _MOST_ENDS:
            del self._ends[self._aging.popitem(last=False)[0]]

    # What the API tells

    async def look(self) -> str:
        """List them all: what is not there any more has gone while nobody listened."""
        newest = max((pod.version for pod in self._pods.values()), default=0)
        there, version, listed = set[str](), "", 0
        async for page in self._client.pages(PODS, labels=self._selector):
            version, listed = page.version, version_of({"resourceVersion": page.version})
            # A list is never older than what was told before it was asked for.
            if 0 < listed < newest:
                self._set_back()
                newest = 0
            there |= {pod.name for item in page.items if (pod := self.put(item)) is not None}
        for pod in list(self._pods.values()):
            # What was made after the list was taken can't be on it.
            if pod.name not in there and (not listed or pod.version <= listed):
                self.gone(pod)
        return version

    def _set_back(self) -> None:
        """The API has its things from a backup: any word of it is newer than what it told before."""
        log.warning("kubernetes.set_back")
        self._pods = {name: replace(pod, version=0) for name, pod in self._pods.items()}

    def changed(self, kind: str, thing: Json) -> None:
        """Take an event of the watch."""
        if kind != "DELETED":
            self.put(thing)
        elif (pod := seen(thing)) is not None:
            self.gone(pod)

    def put(self, thing: Json) -> Pod | None:
        """Take a pod as it was told; the newer word counts. None: it is no workspace's."""
        pod = seen(thing)
        if pod is None:
            return None
        known = self._pods.get(pod.name)
        if known is not None and pod.version < known.version:
            return known
        if known is not None and known.uid != pod.uid:
            self.gone(known)
        self._pods[pod.name] = pod
        self.nudge(pod.name)
        return pod

    def gone(self, pod: Pod) -> None:
        """It is not there any more."""
        known = self._pods.get(pod.name)
        if known is None or known.uid != pod.uid:
            return
        how, end = self.ended(pod, is_gone=True), self._ends.get(pod.name)
        if how is not None and (end is None or end.uid != pod.uid):
            self.remember(pod, how)
        del self._pods[pod.name]
        self._ending.discard(pod.uid)
        self._left(pod.name)
        self.nudge(pod.name)
