"""JupyterHub's view of the proxy: routes that it owns on the bus, and those of workspaces from their records."""

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from mlhub_shared.bus import Lease
from mlhub_shared.contracts.services import Activity, ProxyActivity, ProxyState, Route
from mlhub_shared.contracts.workspace import Phase
from tests.hub.conftest import Stage
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGE = ["/plain/", "/with space/", "/käse/%40x/", "/中文/", "/a.b~c/$/"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    config = tmp_path_factory.mktemp("config") / "jupyterhub_user_config.py"
    routes = {spec: "http://127.0.0.1:7" for spec in STRANGE}
    config.write_text(f"c.Proxy.extra_routes = {routes!r}\nc.JupyterHub.last_activity_interval = 1\n")
    return {"MLHUB_HUB_USER_CONFIG": str(config)}


async def _routes(stage: Stage) -> dict[str, Route]:
    table = stage.bus.start_table(stage.bus.routes)
    await table.synced()
    return {route.routespec: route for route in table.values()}


async def test_strange_routes_reach_the_bus_as_they_are(stage: Stage) -> None:
    async def are_there() -> bool:
        return set(await _routes(stage)) == {"/", *STRANGE}

    await until_async(are_there)
    assert (await _routes(stage))["/"].target == stage.hub.url


async def test_a_route_that_is_none_any_more_goes(stage: Stage) -> None:
    from mlhub_shared.contracts.services import route_key

    stale = Route(routespec="/stale/", target="http://127.0.0.1:6")
    await stage.bus.routes.put(route_key("/stale/"), stale)

    async def is_gone() -> bool:
        return "/stale/" not in await _routes(stage)

    await until_async(is_gone, within=15)


async def test_jupyterhub_finds_every_ready_workspace_routed(stage: Stage) -> None:
    for user in ("ada", "bjørn@example.org"):
        path = f"/users/{quote(user, safe='')}"
        await stage.api("POST", path, expect=201)
        await stage.api("POST", f"{path}/servers/x", expect=202)
        await stage.until_ready(quote(user, safe=""), "x")
    await asyncio.sleep(3)
    log = stage.hub.log.read_text()
    assert "missing route" not in log
    assert "Updating route" not in log
    assert "Deleting stale route /user/" not in log


async def test_activity_of_the_proxy_reaches_the_hub(stage: Stage) -> None:
    await stage.user("act")
    await stage.api("POST", "/users/act/server", expect=202)
    await stage.until_ready("act")
    seen = datetime.now(UTC) + timedelta(minutes=5)
    report = ProxyActivity(replica="proxy2", workspaces={"ws-act-test": Activity(last_activity=seen)})
    await stage.bus.activity.put("proxy2", report)

    async def is_known() -> bool:
        model = await stage.api.server("act")
        return model is not None and datetime.fromisoformat(model["last_activity"]) >= seen - timedelta(seconds=1)

    await until_async(is_known)


async def test_a_workspace_counts_as_ready_only_when_the_proxy_has_its_route(stage: Stage) -> None:
    await stage.user("lag")
    revision = 0
    lease = Lease(stage.bus.proxies, "proxy3", lambda: ProxyState(replica="proxy3", workspaces_revision=revision))
    task = stage.bus.run(lease.run())
    try:
        await asyncio.sleep(1)
        await stage.api("POST", "/users/lag/server", expect=202)
        await stage.until_phase("ws-lag-test", Phase.READY)
        await asyncio.sleep(1)
        assert (await stage.api.server("lag") or {})["pending"] == "spawn"
        revision = 1_000_000
        lease.poke()
        await stage.until_ready("lag", within=20)
    finally:
        task.cancel()


async def test_after_the_loss_of_the_store_routes_are_back_and_nothing_was_stopped(stage: Stage) -> None:
    await stage.user("sam")
    await stage.api("POST", "/users/sam/server", expect=202)
    await stage.until_ready("sam")
    record = await stage.worker.record("ws-sam-test")
    assert record is not None
    stage.worker.leave()
    await stage.nats.kill()
    shutil.rmtree(stage.nats.folder / "store")
    await stage.nats.start()

    async def are_there() -> bool:
        return set(await _routes(stage)) == {"/", *STRANGE}

    await until_async(are_there, within=30)
    # The worker says what really runs, a while after the bus is back.
    assert await stage.api.status("POST", "/users/sam/server") == 400
    await asyncio.sleep(3)
    await stage.bus.workspaces.put(record.name, record)
    await stage.worker.live()
    await asyncio.sleep(2)
    assert (await stage.api.server("sam") or {})["ready"]
