"""What answers in place of the API server, and knows nothing of workspaces."""

import asyncio
from datetime import timedelta

import pytest

from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.kubernetes.refusals import ApiAway, Missing, refusal
from mlhub_spawner_worker.backends.kubernetes.rights import right
from tests.spawner_worker.kubernetes.conftest import Stand
from tests.support.kube.errors import ApiError
from tests.support.kube.faults import of
from tests.support.makers import NEWEST
from tests.support.waiting import until

NOW = timedelta(0)
ALICE = "ws-alice-test"
NO_ROUTE = '{"kind":"Status","status":"Failure","reason":"NotFound","message":"no such cluster","code":404}'
SOMETHING_ELSE = ApiError(404, "NotFound", 'clusters "c" not found', details={"name": "c", "kind": "clusters"})


@pytest.mark.parametrize(
    "body", ["404 page not found\n", "", "[]", '{"details": "none"}', NO_ROUTE, SOMETHING_ELSE.to_json().decode()]
)
@pytest.mark.parametrize("name", [ALICE, ""], ids=["of-one", "of-many"])
def test_a_page_that_is_not_found_says_nothing_of_a_pod(body: str, name: str) -> None:
    assert type(refusal(404, body, right=right("pods", "get"), namespace="w", name=name)) is ApiAway


@pytest.mark.parametrize(("resource", "kind"), [("pods", "pods"), ("pods/log", "pods")])
def test_the_api_itself_is_believed(resource: str, kind: str) -> None:
    gone = ApiError(404, "NotFound", f'pods "{ALICE}" not found', details={"name": ALICE, "kind": kind})
    told = refusal(404, gone.to_json().decode(), right=right(resource, "get"), namespace="w", name=ALICE)
    assert type(told) is Missing


async def test_a_wrong_route_ends_no_workspace(stand: Stand) -> None:
    async with stand.backend() as one, stand.backend() as other:
        job = stand.job()
        await stand.run(one, job)
        await until(lambda: other.session(job.name) is not None)
        stand.cluster.faults.silence()
        stand.cluster.faults.middle_box(404, matches=of("get", "pods"))
        with pytest.raises(Temporary, match="can't get pods now: 404 page not found"):
            await other.stop(job.name, grace=NOW, up_to=NEWEST)
        stand.cluster.faults.clear()
        watching = asyncio.ensure_future(other.wait(job.name))
        await asyncio.sleep(0.5)
        assert not watching.done()
        watching.cancel()


async def test_a_wrong_route_finishes_no_deletion(stand: Stand) -> None:
    async with stand.backend() as backend:
        job = stand.job()
        await stand.run(backend, job)
        stand.cluster.faults.middle_box(404, matches=of("get", "persistentvolumeclaims"))
        with pytest.raises(Temporary, match="can't get persistentvolumeclaims now"):
            await backend.erase(job.name, up_to=NEWEST)
        assert stand.cluster.get("persistentvolumeclaims", job.name), "its files are still there"
        await backend.erase(job.name, up_to=NEWEST)
        await until(lambda: not stand.left())
