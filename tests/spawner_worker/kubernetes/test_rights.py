"""The worker's Role: enough for everything, and each verb that it lacks is named while the rest goes on."""

import asyncio
import contextlib
from collections.abc import Awaitable
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mlhub_shared.contracts.workspace import Phase
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.kubernetes import KubernetesBackend
from mlhub_spawner_worker.backends.kubernetes.rights import RIGHTS, Right
from tests.spawner_worker.kubernetes.conftest import Stand
from tests.support.kube.faults import of
from tests.support.kube_backend import rules
from tests.support.makers import NEWEST, delete, spawn
from tests.support.nats_server import NatsServer
from tests.support.waiting import until
from tests.support.workers import People, working

ALICE, BOB, DAVE = "ws-alice-test", "ws-bob-test", "ws-dave-test"
NOW = timedelta(0)

OWN = [right for right in RIGHTS if right.resource not in {"pods/exec", "pods/portforward"}]
"""Those for entering a workspace are tried where it is entered."""

STOPS_STARTS = {
    "create pods",
    "list pods",
    "create services",
    "get services",
    "create persistentvolumeclaims",
    "get persistentvolumeclaims",
    "create networkpolicies",
    "get networkpolicies",
}
"""Without these nothing can be started; without any other one, everything still can."""


KEEPS_NOBODY = {"get pods/log", "list events", "watch events", "patch pods", "patch persistentvolumeclaims"}
"""Without these all goes on, so it is for the operator, in the log; of any other one, people are told."""


async def begin_in_vain(stand: Stand, backend: KubernetesBackend) -> None:
    """A start that comes to its isolation, and no further."""
    stand.cluster.faults.broken(times=1, matches=of("create", "pods"))
    with contextlib.suppress(Temporary, TimeoutError):
        await asyncio.wait_for(backend.prepare(stand.job("dave", is_mount_volume=False), stand.report), 5)
    stand.cluster.faults.clear()


async def live(stand: Stand, backend: KubernetesBackend) -> list[str]:
    """Two lives, with and without a volume; what could not be done is returned."""
    failures = []

    async def attempt(step: Awaitable[object]) -> None:
        try:
            await asyncio.wait_for(step, 5)
        except (Temporary, TimeoutError) as error:
            failures.append(str(error))

    for name, job in ((ALICE, stand.job()), (BOB, stand.job("bob", is_mount_volume=False))):
        await attempt(stand.run(backend, job))
        await attempt(backend.remember(job.record.model_copy(update={"phase": Phase.READY})))
        await attempt(backend.describe(name))
    await attempt(backend.inventory())
    await begin_in_vain(stand, backend)
    await attempt(stand.run(backend, stand.job(generation=2)))
    for name in (ALICE, BOB, DAVE):
        await attempt(backend.stop(name, grace=NOW, up_to=NEWEST))
        await attempt(backend.erase(name, up_to=NEWEST))
    return failures


async def test_the_workers_own_role_is_enough_for_everything(stand: Stand) -> None:
    async with stand.backend() as backend:
        assert await live(stand, backend) == []
    await until(lambda: not stand.left())
    assert not [call for call in stand.cluster.requests if call.status == 403]


@pytest.mark.parametrize("right", OWN, ids=str)
async def test_a_verb_that_is_missing_is_named_and_the_rest_goes_on(
    stand: Stand, right: Right, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlhub_spawner_worker.backends.kubernetes.backend._PATIENCE", timedelta(seconds=1))
    with capture_logs() as logs:
        async with stand.backend(role=rules(without=right)) as backend:
            failures = await live(stand, backend)
            runs = stand.job("carol")
            started = False
            with contextlib.suppress(Temporary, TimeoutError):
                started = bool(await asyncio.wait_for(stand.run(backend, runs), 5))
    said = [*failures, *(message for _, message in stand.said)]
    logged = [str(entry.get("why")) for entry in logs]
    told = logged if str(right) in KEEPS_NOBODY else said
    assert [text for text in told if f"may not {right} in the namespace {stand.cluster.namespace}" in text]
    assert not [text for text in said + logged if "may not" in text and f"may not {right}" not in text]
    assert started is (str(right) not in STOPS_STARTS)


@pytest.mark.parametrize("resource", ["pods", "persistentvolumeclaims"])
async def test_a_deletion_without_its_verb_says_so_on_the_record_and_goes_on_with_it(
    stand: Stand, nats_server: NatsServer, tmp_path: Path, people: People, resource: str
) -> None:
    async with working(nats_server, tmp_path / "w", stand.made(), node="kubernetes"):
        await people.send(spawn(generation=10))
        await people.reaches(ALICE, Phase.READY)
        stand.cluster.faults.revoke("delete", resource)
        await people.send(delete(generation=20), node="kubernetes")
        record = await people.reaches(ALICE, lambda r: r is not None and f"may not delete {resource}" in r.message)
        assert record.phase is Phase.STOPPING
        stand.cluster.faults.grant("delete", resource)
        await people.vanishes(ALICE)
    await until(lambda: not stand.left())
