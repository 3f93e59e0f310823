"""The frontends that are not for people: probe, hub API, socket, the agent's API."""

import asyncio
import stat
from pathlib import Path

import pytest
from aiohttp import web

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.workspace import Endpoint, Phase
from mlhub_spawner_worker.probe import HttpProbe
from tests.proxy.backend import Backend
from tests.proxy.conftest import MakeBackend, applied, put, ready
from tests.proxy.stack import Agent, ask
from tests.support.makers import record

EVASIONS = [
    "/hub/login",
    "/user/other/",
    "/",
    "/hub/api/../login",
    "/hub/api/./../login",
    "/hub/api/%2e%2e/login",
    "/hub/api/%2E%2E/login",
    "/hub/api/.%2e/login",
    "//hub/login",
    "/hub//login",
    "/hub/api/..%2flogin",
    "/hub/api/..%2Flogin",
    "/hub/api%2f..%2flogin",
    "/hub/api/..%5clogin",
    "/hub/api\\..\\login",
    "/hub/api/..\\login",
    "/hub/apix",
    "/hub/API/",
    "/hub/api/..;/login",
    "/user/x/../../hub/login",
]


async def test_the_api_frontend_leads_to_the_hub_api_only(agent: Agent) -> None:
    passed = {
        path: answer.status for path in EVASIONS if (answer := await ask(agent.api, path)).status not in (400, 403)
    }
    assert passed == {}
    for path in ("/hub/api", "/hub/api/", "/hub/api/users/a@b/activity", "/hub/x/../api/user?a=/..%2f"):
        answer = await ask(agent.api, path, method="POST")
        assert (path, answer.status, answer.said["name"]) == (path, 200, "hub")


async def test_the_probe_shows_what_is_up_and_keeps_credentials_back(
    agent: Agent, bus: Bus, backend: MakeBackend
) -> None:
    server = await backend("alice")
    endpoint = Endpoint(host="127.0.0.1", port=server.port)
    assert (await ask(agent.probe, "/user/alice/api")).status == 503
    await applied(bus, workspaces=await put(bus, record(phase=Phase.STARTING, endpoint=endpoint)))
    answer = await ask(agent.probe, "/user/alice/api", headers={"Cookie": "a=b", "Authorization": "token x"})
    assert answer.said["name"] == "alice"
    assert not {"cookie", "authorization"} & set(answer.said["headers"])
    # Nobody else gets there before it is ready.
    assert (await ask(agent.public, "/user/alice/api")).said["name"] == "hub"
    # Another workspace of the same user is not up because this one is.
    assert (await ask(agent.probe, "/user/alice/gpu1/api")).status == 503
    for phase in (Phase.STOPPING, Phase.STOPPED, Phase.FAILED):
        await applied(bus, workspaces=await put(bus, record(phase=phase, endpoint=endpoint)))
        assert (await ask(agent.probe, "/user/alice/api")).status == 404
    await applied(bus, workspaces=await put(bus, record(phase=Phase.QUEUED)))
    assert (await ask(agent.probe, "/user/alice/api")).status == 503


async def test_a_server_without_a_page_at_its_probe_s_path_is_up_and_a_stopped_one_is_not(
    agent: Agent, bus: Bus
) -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        endpoint = Endpoint(host="127.0.0.1", port=runner.addresses[0][1])
        async with HttpProbe.open(f"http://127.0.0.1:{agent.probe}") as probe:
            for phase, is_up in ((Phase.STARTING, True), (Phase.STOPPED, False), (Phase.QUEUED, False)):
                shown = record(phase=phase, endpoint=endpoint)
                await applied(bus, workspaces=await put(bus, shown))
                assert await probe(shown) is is_up
    finally:
        await runner.cleanup()


async def test_the_probe_takes_nothing_but_probes(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    server = await backend("alice")
    await applied(bus, workspaces=await put(bus, ready(server)))
    assert (await ask(agent.probe, "/user/alice/api", method="POST")).status == 405
    assert (await ask(agent.probe, "/user/alice/lab")).status == 404
    assert (await ask(agent.probe, "/hub/api")).status == 503
    assert (await ask(agent.probe, "/user/alice/files/api")).status == 503


async def test_a_silent_workspace_does_not_hold_the_one_who_probes(agent: Agent, bus: Bus) -> None:
    silent = await asyncio.start_server(lambda _r, _w: asyncio.sleep(60), "127.0.0.1", 0)
    async with silent:
        endpoint = Endpoint(host="127.0.0.1", port=silent.sockets[0].getsockname()[1])
        await applied(bus, workspaces=await put(bus, record(phase=Phase.STARTING, endpoint=endpoint)))
        assert (await ask(agent.probe, "/user/alice/api")).status == 504


async def test_the_probe_rejects_strangers(stopped_agent: Agent) -> None:
    await stopped_agent.start(INTERNAL_NETWORKS="10.9.8.0/24")
    await stopped_agent.ready()
    with pytest.raises(ConnectionError):
        await ask(stopped_agent.probe, "/user/alice/api")
    assert (await ask(stopped_agent.public, "/")).status == 200


async def test_the_api_frontend_rejects_whoever_is_on_no_network_of_users(stopped_agent: Agent) -> None:
    await stopped_agent.start(API_NETWORKS="10.9.8.0/24")
    await stopped_agent.ready()
    with pytest.raises(ConnectionError):
        await ask(stopped_agent.api, "/hub/api")
    await stopped_agent.stop()
    await stopped_agent.start(API_NETWORKS="10.9.8.0/24,127.0.0.0/8")
    await stopped_agent.ready()
    assert (await ask(stopped_agent.api, "/hub/api")).said["name"] == "hub"


async def test_the_public_frontend_refuses_programs_in_workspaces(stopped_agent: Agent) -> None:
    await stopped_agent.start(REFUSED_NETWORKS="10.9.8.0/24,127.0.0.0/8")
    await stopped_agent.ready()
    with pytest.raises(ConnectionError):
        await ask(stopped_agent.public, "/")
    # Which is how they find the hub.
    assert (await ask(stopped_agent.api, "/hub/api")).said["name"] == "hub"
    await stopped_agent.stop()
    await stopped_agent.start(REFUSED_NETWORKS="10.9.8.0/24")
    await stopped_agent.ready()
    assert (await ask(stopped_agent.public, "/")).said["name"] == "hub"


async def test_nobody_else_gets_at_haproxys_socket(agent: Agent) -> None:
    for name in ("haproxy.sock", "metrics.sock"):
        assert stat.S_IMODE((agent.socket.parent / name).stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(agent.socket.parent.stat().st_mode) == 0o700


async def test_haproxy_knows_no_secret_of_ours(agent: Agent) -> None:
    assert b"MLHUB" not in await asyncio.to_thread(Path(f"/proc/{agent.haproxy}/environ").read_bytes)


async def test_the_agents_api_wants_the_internal_token(agent: Agent, hub: Backend) -> None:
    for path in ("/routes", "/metrics", "/metrics/haproxy"):
        assert (await agent.get(path, token=None)).status_code == 401
        assert (await agent.get(path, token="wrong")).status_code == 401
        assert (await agent.get(path)).status_code == 200
    assert "haproxy_process_" in (await agent.get("/metrics/haproxy")).text
    assert "mlhub_proxy_routes" in (await agent.get("/metrics")).text
    assert (await agent.get("/live", token=None)).status_code == 200
