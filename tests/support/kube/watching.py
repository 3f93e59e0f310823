"""Watches: a position in the history of a kind, and a filter."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tests.support.kube.errors import ApiError, expired
from tests.support.kube.resources import Resource
from tests.support.kube.selectors import Matches
from tests.support.kube.store import Change, Store, Stored

_BOOKMARK_EVERY = 2.0
"""Seconds; once a minute in a real server."""


@dataclass(frozen=True)
class Request:
    """What one watch wants."""

    resource: Resource
    namespace: str
    matches: Matches
    revision: str
    """Where it goes on; empty or "0": with all that is there."""
    bookmarks: bool = False
    initial: bool = False
    """With all that is there, and a bookmark that says where that ends."""

    @property
    def after(self) -> int:
        """The version that it has; one that is still to come is waited for, without a word."""
        return int(self.revision or 0)


def event(kind: str, body: bytes) -> bytes:
    """One line of a watch."""
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), body)


async def watch(store: Store, request: Request) -> AsyncIterator[bytes]:
    """The lines of a watch, without end; an ERROR is the last."""
    history = store.histories[request.resource.plural]
    wake = asyncio.Event()
    history.waiters.add(wake)
    try:
        position, first = _begin(store, request)
        for line in first:
            yield line
        while True:
            wake.clear()
            if position < history.base:
                raise expired(f"too old resource version: {store.compacted - 1} ({store.compacted})")
            changes = history.changes[position - history.base :]
            position = history.end
            for change in changes:
                if change.revision > request.after and (seen := _line(request, change)):
                    yield seen
            is_quiet = not await _woken(wake) and position == history.end
            if is_quiet and request.bookmarks and store.revision >= request.after:
                yield _bookmark(store, request)
    except ApiError as error:
        yield event("ERROR", error.to_json())
    finally:
        history.waiters.discard(wake)


def _begin(store: Store, request: Request) -> tuple[int, list[bytes]]:
    """Where to go on from, and what to tell first."""
    if request.revision not in {"", "0"}:
        return store.since(request.resource.plural, int(request.revision)), []
    lines = [
        event("ADDED", stored.body)
        for stored in store.all(request.resource.plural, request.namespace)
        if request.matches(stored.obj)
    ]
    if request.initial:
        lines.append(_bookmark(store, request, annotations={"k8s.io/initial-events-end": "true"}))
    return store.histories[request.resource.plural].end, lines


async def _woken(wake: asyncio.Event) -> bool:
    try:
        await asyncio.wait_for(wake.wait(), _BOOKMARK_EVERY)
    except TimeoutError:
        return False
    return True


def _line(request: Request, change: Change) -> bytes | None:
    """What of a change can be seen through the filter: what leaves it is gone, what enters it is new."""
    if request.namespace and change.now.namespace != request.namespace:
        return None
    had = change.before is not None and request.matches(change.before.obj)
    if change.type == "DELETED":
        return event("DELETED", change.now.body) if had else None
    has = request.matches(change.now.obj)
    if has:
        return event("MODIFIED" if had else "ADDED", change.now.body)
    if not had or change.before is None:
        return None
    return event("DELETED", _as_it_was(change.before, change.revision))


def _as_it_was(before: Stored, revision: int) -> bytes:
    metadata = {**before.obj["metadata"], "resourceVersion": str(revision)}
    return Stored(before.resource, {**before.obj, "metadata": metadata}).body


def _bookmark(store: Store, request: Request, annotations: dict[str, str] | None = None) -> bytes:
    metadata: dict[str, object] = {"resourceVersion": str(store.revision), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    resource = request.resource
    return event(
        "BOOKMARK",
        json.dumps({"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}).encode(),
    )
