"""Watches: where they begin, what they tell, and every way in which they end."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from kubernetes_asyncio import watch
from kubernetes_asyncio.client import ApiException

from tests.kube.clients import Clients, Obj, pod, refused, service
from tests.support.waiting import until


@contextlib.asynccontextmanager
async def _lines(k8s: Clients, **params: str) -> AsyncIterator[asyncio.Queue[Obj]]:
    """The lines of a watch of services."""
    lines: asyncio.Queue[Obj] = asyncio.Queue()

    async def read() -> None:
        async with k8s.http.get(k8s.url("services"), params={"watch": "true", **params}) as answer:
            assert answer.status == 200
            async for line in answer.content:
                lines.put_nowait(json.loads(line))

    reading = asyncio.create_task(read())
    try:
        yield lines
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError):
            await reading


async def _next(lines: asyncio.Queue[Obj]) -> tuple[str, str]:
    event = await asyncio.wait_for(lines.get(), 20)
    return event["type"], event["object"]["metadata"].get("name", "")


async def _label(k8s: Clients, name: str, value: str | None) -> None:
    await k8s.core.patch_namespaced_service(name, k8s.namespace, {"metadata": {"labels": {"w": value}}})


async def test_a_watch_replays_from_a_version_and_goes_on(k8s: Clients) -> None:
    ns = k8s.namespace
    await k8s.core.create_namespaced_service(ns, service("a"))
    listed = await k8s.core.list_namespaced_service(ns)
    await k8s.core.create_namespaced_service(ns, service("b"))
    await k8s.core.delete_namespaced_service("a", ns)

    async with _lines(k8s, resourceVersion=listed.metadata.resource_version) as lines:
        assert [await _next(lines) for _ in range(2)] == [("ADDED", "b"), ("DELETED", "a")]
        await _label(k8s, "b", "x")
        assert await _next(lines) == ("MODIFIED", "b")


async def test_without_a_version_it_begins_with_all_that_is_there(k8s: Clients) -> None:
    await k8s.core.create_namespaced_service(k8s.namespace, service("a"))
    async with _lines(k8s) as lines:
        assert await _next(lines) == ("ADDED", "a")
    async with _lines(k8s, sendInitialEvents="true", allowWatchBookmarks="true") as lines:
        assert await _next(lines) == ("ADDED", "a")
        bookmark = await asyncio.wait_for(lines.get(), 20)
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_what_leaves_the_selector_is_gone_and_what_enters_is_new(k8s: Clients) -> None:
    ns = k8s.namespace
    version = (await k8s.core.list_namespaced_service(ns)).metadata.resource_version
    async with _lines(k8s, labelSelector="w=x", resourceVersion=version) as lines:
        await k8s.core.create_namespaced_service(ns, service("a", labels={"w": "x"}))
        await k8s.core.create_namespaced_service(ns, service("b", labels={"w": "y"}))
        await _label(k8s, "a", None)
        await _label(k8s, "b", "x")
        await k8s.core.delete_namespaced_service("b", ns)
        told = [await _next(lines) for _ in range(4)]

    assert told == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "b"), ("DELETED", "b")]


async def test_every_event_carries_the_version_that_it_made(k8s: Clients) -> None:
    ns = k8s.namespace
    async with _lines(k8s, labelSelector="w=x") as lines:
        await k8s.core.create_namespaced_service(ns, service("a", labels={"w": "x"}))
        await _label(k8s, "a", None)
        versions = [int((await asyncio.wait_for(lines.get(), 20))["object"]["metadata"]["resourceVersion"])]
        versions.append(int((await asyncio.wait_for(lines.get(), 20))["object"]["metadata"]["resourceVersion"]))
    current = await k8s.core.read_namespaced_service("a", ns)

    assert versions[0] < versions[1] == int(current.metadata.resource_version)


async def test_it_ends_by_itself_after_its_time(k8s: Clients) -> None:
    began = time.monotonic()
    async with watch.Watch("object") as watching:
        async for _ in watching.stream(k8s.core.list_namespaced_service, k8s.namespace, timeout_seconds=1):
            raise AssertionError("there is nothing to tell")

    assert 0.9 < time.monotonic() - began < 15


async def test_a_bookmark_tells_the_version_where_nothing_else_does(k8s: Clients) -> None:
    version = (await k8s.core.list_namespaced_service(k8s.namespace)).metadata.resource_version
    async with _lines(k8s, resourceVersion=version, allowWatchBookmarks="true") as lines:
        await k8s.core.create_namespaced_config_map(k8s.namespace, {"metadata": {"name": "other"}})
        event = await asyncio.wait_for(lines.get(), 20)

    assert event["type"] == "BOOKMARK"
    assert int(event["object"]["metadata"]["resourceVersion"]) > int(version)


async def test_a_version_that_is_too_old_is_410_inside_a_200(k8s: Clients) -> None:
    version = (await k8s.core.list_namespaced_service(k8s.namespace)).metadata.resource_version
    k8s.cluster.faults.compact()
    async with _lines(k8s, resourceVersion=version) as lines:
        event = await asyncio.wait_for(lines.get(), 20)
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")

    listing = k8s.core.list_namespaced_service
    with pytest.raises(ApiException, match="Expired: too old resource version") as caught:
        await _first(k8s, listing, resource_version=version, timeout_seconds=20)
    assert (caught.value.status, caught.value.body) == (410, None)


async def _first(k8s: Clients, listing: Any, **options: Any) -> Any:
    async with watch.Watch("object") as watching:
        async for event in watching.stream(listing, k8s.namespace, **options):
            return event
    return None


async def test_a_cut_watch_breaks_in_the_middle(k8s: Clients) -> None:
    watching = asyncio.create_task(
        _first(k8s, k8s.core.list_namespaced_service, timeout_seconds=60, _request_timeout=60)
    )
    await until(lambda: k8s.cluster.reads["watch", "services"] == 1)
    await asyncio.sleep(0.1)
    k8s.cluster.faults.cut_watches()

    with pytest.raises(aiohttp.ClientPayloadError):
        await asyncio.wait_for(watching, 20)


async def test_a_silent_watch_tells_nothing_beyond_its_own_time(k8s: Clients) -> None:
    k8s.cluster.faults.silence()
    await k8s.core.create_namespaced_service(k8s.namespace, service("a"))
    patience = aiohttp.ClientTimeout(sock_read=2)
    with pytest.raises(asyncio.TimeoutError):
        await _first(k8s, k8s.core.list_namespaced_service, timeout_seconds=1, _request_timeout=patience)

    watching = asyncio.create_task(_first(k8s, k8s.core.list_namespaced_service, timeout_seconds=30))
    await until(lambda: k8s.cluster.reads["watch", "services"] == 2)
    k8s.cluster.faults.speak()
    assert (await asyncio.wait_for(watching, 20))["raw_object"]["metadata"]["name"] == "a"


async def test_text_of_a_middle_box_arrives_as_text(k8s: Clients) -> None:
    k8s.cluster.faults.middle_box(503)
    event = await _first(k8s, k8s.core.list_namespaced_service, timeout_seconds=5)

    assert isinstance(event, str)


class _Cache:
    """Follows the pods by the loop that every client has to have."""

    def __init__(self, k8s: Clients) -> None:
        self._k8s = k8s
        self.versions: dict[str, str] = {}

    async def follow(self) -> None:
        while True:
            listed = json.loads(await _raw(self._k8s))
            self.versions = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in listed["items"]}
            with contextlib.suppress(aiohttp.ClientError, ApiException):
                await self._keep(listed["metadata"]["resourceVersion"])

    async def _keep(self, version: str) -> None:
        listing = self._k8s.core.list_namespaced_pod
        async with watch.Watch("object") as watching:
            async for event in watching.stream(
                listing, self._k8s.namespace, resource_version=version, timeout_seconds=60
            ):
                metadata = event["raw_object"]["metadata"]
                if event["type"] == "DELETED":
                    self.versions.pop(metadata["name"])
                else:
                    self.versions[metadata["name"]] = metadata["resourceVersion"]


async def test_a_cache_that_follows_the_events_equals_the_cluster(k8s: Clients) -> None:
    cache = _Cache(k8s)
    following = asyncio.create_task(cache.follow())
    for number in range(12):
        await k8s.core.create_namespaced_pod(k8s.namespace, pod(f"p{number}"))
        if number == 4:
            k8s.cluster.faults.cut_watches()
        if number == 8:
            k8s.cluster.faults.expire_watches()
    for number in range(0, 12, 2):
        await k8s.core.delete_namespaced_pod(f"p{number}", k8s.namespace, grace_period_seconds=0)

    def is_equal() -> bool:
        metadata = [one["metadata"] for one in k8s.cluster.objects("pods")]
        return len(metadata) == 6 and cache.versions == {one["name"]: one["resourceVersion"] for one in metadata}

    await until(is_equal)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def _raw(k8s: Clients) -> bytes:
    async with k8s.http.get(k8s.url("pods")) as answer:
        return await answer.read()


async def test_a_watch_needs_its_own_right(k8s: Clients) -> None:
    k8s.cluster.faults.revoke("watch", "services")
    async with k8s.http.get(k8s.url("services"), params={"watch": "true"}) as answer:
        assert answer.status == 403
    await refused(k8s.core.read_namespaced_service("none", k8s.namespace), 404)
