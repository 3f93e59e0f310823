"""Objects, the one counter of their versions, and what has changed."""

import asyncio
import json
import uuid
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from tests.support.kube.errors import expired
from tests.support.kube.resources import BY_PLURAL, Obj, Resource

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]
Key = tuple[str, str]
"""Namespace (empty: none) and name."""


def now() -> str:
    """The time as objects carry it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(eq=False)
class Stored:
    """One version of one object. `obj` has neither `kind` nor `apiVersion`; nobody ever changes it."""

    resource: Resource
    obj: Obj

    @property
    def name(self) -> str:
        """Of the object."""
        return str(self.obj["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Empty: none."""
        return str(self.obj["metadata"].get("namespace", ""))

    @property
    def uid(self) -> str:
        """Of the object."""
        return str(self.obj["metadata"]["uid"])

    @property
    def key(self) -> Key:
        """Where it lies."""
        return (self.namespace, self.name)

    @property
    def revision(self) -> int:
        """Its resourceVersion."""
        return int(self.obj["metadata"]["resourceVersion"])

    @property
    def is_going(self) -> bool:
        """It has been deleted, and is still here."""
        return "deletionTimestamp" in self.obj["metadata"]

    @cached_property
    def item(self) -> bytes:
        """As it stands in a list: encoded once, however many ask."""
        return json.dumps(self.obj, separators=(",", ":")).encode()

    @property
    def body(self) -> bytes:
        """As it stands alone."""
        head = f'{{"kind":"{self.resource.kind}","apiVersion":"{self.resource.api_version}",'
        return head.encode() + self.item[1:]


@dataclass(frozen=True, slots=True)
class Change:
    """What watches are told."""

    type: ChangeType
    now: Stored
    before: Stored | None
    revision: int


class History:
    """The changes of one kind, in order, since the last compaction."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.base = 0
        """How many have been forgotten: positions stay valid over a compaction."""
        self.waiters: set[asyncio.Event] = set()

    @property
    def end(self) -> int:
        """Position of the next one."""
        return self.base + len(self.changes)

    def after(self, revision: int) -> int:
        """Position of the first one that is newer."""
        return self.base + bisect_right(self.changes, revision, key=lambda change: change.revision)

    def add(self, change: Change) -> None:
        """Take it down and wake who waits."""
        self.changes.append(change)
        for waiter in self.waiters:
            waiter.set()

    def forget(self) -> None:
        """Compact everything away."""
        self.base = self.end
        self.changes = []


@dataclass(frozen=True)
class Backup:
    """All objects, as they once were."""

    revision: int
    objects: dict[str, dict[Key, Stored]]


class Store:
    """Where every object is. It knows no rules: whoever calls it has kept them."""

    def __init__(self) -> None:
        self.revision = 1000
        self.compacted = 0
        """What is older than this can't be watched from."""
        self.histories: dict[str, History] = defaultdict(History)
        self.by_uid: dict[str, Stored] = {}
        self._objects: dict[str, dict[Key, Stored]] = {plural: {} for plural in BY_PLURAL}
        self._listeners: list[Callable[[Change], None]] = []

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Have it called with every change, at once; it must not change the store itself."""
        self._listeners.append(listener)

    def get(self, plural: str, namespace: str, name: str) -> Stored | None:
        """The object now."""
        return self._objects[plural].get((namespace, name))

    def all(self, plural: str, namespace: str = "") -> Iterable[Stored]:
        """Every object of a kind, in a namespace or in all."""
        objects = self._objects[plural]
        if not namespace:
            return list(objects.values())
        return [stored for (where, _), stored in objects.items() if where == namespace]

    def add(self, resource: Resource, obj: Obj) -> Stored:
        """Store a new one; it gets its identity here."""
        metadata = {
            **obj["metadata"],
            "uid": str(uuid.uuid4()),
            "resourceVersion": self._next(),
            "creationTimestamp": now(),
        }
        stored = Stored(resource, {**obj, "metadata": metadata})
        self._put(stored)
        self._tell("ADDED", stored, None)
        return stored

    def replace(self, old: Stored, obj: Obj) -> Stored:
        """Store another version of one; the very same is none."""
        if obj == old.obj:
            return old
        stored = Stored(old.resource, {**obj, "metadata": {**obj["metadata"], "resourceVersion": self._next()}})
        self._put(stored)
        self._tell("MODIFIED", stored, old)
        return stored

    def remove(self, old: Stored) -> Stored:
        """Have it no more."""
        last = Stored(old.resource, {**old.obj, "metadata": {**old.obj["metadata"], "resourceVersion": self._next()}})
        del self._objects[old.resource.plural][old.key]
        del self.by_uid[old.uid]
        self._tell("DELETED", last, old)
        return last

    def compact(self) -> None:
        """Forget what was: every watch from before ends with 410."""
        self._next()
        self.compacted = self.revision
        for history in self.histories.values():
            history.forget()

    def backup(self) -> Backup:
        """Everything as it is now."""
        return Backup(self.revision, {plural: {**objects} for plural, objects in self._objects.items()})

    def restore(self, backup: Backup) -> None:
        """As it was then, versions too. Nobody is told."""
        self.revision = backup.revision
        self._objects = {plural: {**objects} for plural, objects in backup.objects.items()}
        self.by_uid = {stored.uid: stored for objects in self._objects.values() for stored in objects.values()}
        for history in self.histories.values():
            history.forget()

    def since(self, plural: str, revision: int) -> int:
        """Position in the history from which one watches on; 410 if that is forgotten."""
        if revision < self.compacted:
            raise expired(f"too old resource version: {revision} ({self.compacted})")
        return self.histories[plural].after(revision)

    def _next(self) -> str:
        self.revision += 1
        return str(self.revision)

    def _put(self, stored: Stored) -> None:
        self._objects[stored.resource.plural][stored.key] = stored
        self.by_uid[stored.uid] = stored

    def _tell(self, kind: ChangeType, stored: Stored, before: Stored | None) -> None:
        change = Change(kind, stored, before, stored.revision)
        self.histories[stored.resource.plural].add(change)
        for listener in self._listeners:
            listener(change)
