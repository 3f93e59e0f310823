"""Where requests go: records, the hub's routes, and what no route claims."""

import asyncio
from urllib.parse import quote

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.services import Route, route_key
from mlhub_shared.contracts.workspace import Endpoint, Phase
from tests.proxy.backend import Backend
from tests.proxy.conftest import MakeBackend, applied, put, ready
from tests.proxy.stack import Agent, ask
from tests.support.makers import record
from tests.support.ports import free_port
from tests.support.waiting import until_async


async def route(bus: Bus, routespec: str, target: str) -> int:
    return await bus.routes.put(route_key(routespec), Route(routespec=routespec, target=target))


async def test_the_longest_prefix_wins_over_records_routes_and_hub(
    agent: Agent, bus: Bus, backend: MakeBackend
) -> None:
    alice, gpu, service, extra = [await backend(name) for name in ("alice", "gpu", "service", "extra")]
    await put(bus, ready(alice))
    workspaces = await put(bus, ready(gpu, server="gpu1"))
    await route(bus, "/", "http://127.0.0.1:1")
    await route(bus, "/services/clean/", f"http://localhost:{service.port}")
    routes = await route(bus, "/user/alice/gpu1/extra/", f"http://127.0.0.1:{extra.port}/ignored")
    await applied(bus, workspaces=workspaces, routes=routes)
    for path, name in {
        "/": "hub",
        "/hub/home": "hub",
        "/user/bob/lab": "hub",
        "/user/alicex/": "hub",
        "/user/alice/": "alice",
        "/user/alice/lab?next=/hub/": "alice",
        "/user/alice?a=b": "alice",
        "/user/alice/gpu1/api": "gpu",
        "/user/alice/gpu1x/api": "alice",
        "/user/alice/gpu1/extra/x": "extra",
        "/services/clean": "service",
        "/services/clean/users": "service",
        "/user/bob/../alice/x": "alice",
        "/user/alice/../bob/x": "hub",
        "/user/%61lice/x": "alice",
        "/user/alice/..%2fbob/": "alice",
    }.items():
        answer = await ask(agent.public, path)
        assert (path, answer.status, answer.said["name"]) == (path, 200, name)


async def test_a_name_is_found_however_its_prefix_is_escaped(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    workspace = await backend("workspace")
    for user in ("a@b", "o'brien (x)", "ü+;=&,$!*", "a%b", "~.-_"):
        base_url = f"/user/{quote(user, safe='@~')}/"
        await applied(bus, workspaces=await put(bus, ready(workspace, user=user, base_url=base_url)))
        spellings = {quote(user, safe=safe) for safe in ("", "@", "!'()*", "!$&'()*+,;=:@")}
        for spelling in spellings | {spelling.lower() for spelling in spellings}:
            answer = await ask(agent.public, f"/user/{spelling}/lab")
            assert (spelling, answer.said["name"]) == (spelling, "workspace")
        await applied(bus, workspaces=await put(bus, record(user=user, phase=Phase.STOPPED, base_url=base_url)))
        assert (await ask(agent.public, f"{base_url}lab")).said["name"] == "hub"


async def test_a_stopped_workspace_loses_its_route_and_its_pages_go_to_the_hub(
    agent: Agent, bus: Bus, backend: MakeBackend
) -> None:
    alice, gpu = await backend("alice"), await backend("gpu")
    await put(bus, ready(alice))
    await applied(bus, workspaces=await put(bus, ready(gpu, server="gpu1")))
    assert (await ask(agent.public, "/user/alice/gpu1/lab")).said["name"] == "gpu"
    assert (await ask(agent.probe, "/user/alice/gpu1/api")).said["name"] == "gpu"

    await applied(bus, workspaces=await put(bus, record(server="gpu1", phase=Phase.STOPPED)))
    # Not to the user's default server, whose prefix it has too.
    assert (await ask(agent.public, "/user/alice/gpu1/lab")).said["name"] == "hub"
    assert (await ask(agent.probe, "/user/alice/gpu1/api")).status == 404

    await bus.workspaces.delete(record(server="gpu1").name)

    async def gone() -> bool:
        return (await ask(agent.probe, "/user/alice/gpu1/api")).status == 503

    await until_async(gone)
    assert (await ask(agent.public, "/user/alice/lab")).said["name"] == "alice"


async def test_a_workspace_that_moves_is_followed(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    one, two = await backend("one"), await backend("two")
    await applied(bus, workspaces=await put(bus, ready(one)))
    assert (await ask(agent.public, "/user/alice/")).said["name"] == "one"
    await applied(bus, workspaces=await put(bus, ready(two)))
    assert (await ask(agent.public, "/user/alice/")).said["name"] == "two"


async def test_a_record_can_claim_only_its_own_prefix(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    evil = await backend("evil")
    prefixes = [
        "/",
        "/hub/",
        "/user/bob/",
        "/user/mallory/../../",
        "/user/%2e%2e/",
        "/user/mallory/\ndel map public.map /\n/",
        "/user/mallory/ x/",
        '/user/mallory/;"\\/',
        "/user/mallory",
        "//",
        "",
    ]
    for number, prefix in enumerate(prefixes):
        await bus.workspaces.put(f"m{number}", ready(evil, user="mallory", base_url=prefix))
    await bus.workspaces.put("dots", ready(evil, user="..", base_url="/user/../"))
    unspecified = record(user="zero", phase=Phase.READY, endpoint=Endpoint(host="::", port=agent.public))
    await put(bus, unspecified)
    named = record(user="named", phase=Phase.READY, endpoint=Endpoint(host="localhost\nquit", port=1))
    await put(bus, named)
    # A good one comes through in the same breath.
    await applied(bus, workspaces=await put(bus, ready(evil, user="good")))
    assert (await ask(agent.public, "/user/good/")).said["name"] == "evil"
    for path in ("/", "/hub/login", "/user/bob/", "/user/mallory/", "/user/zero/", "/user/named/"):
        assert (await ask(agent.public, path)).said["name"] == "hub"
    assert set((await agent.get("/routes")).json()["public"]) == {"/user/good/"}


async def test_routes_that_cannot_be_served_do_no_harm(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    service = await backend("service")
    await route(bus, "hub.example/user/", f"http://127.0.0.1:{service.port}")
    await route(bus, "/services/tls/", "https://127.0.0.1:1")
    await route(bus, "/services/nowhere/", "http://nowhere.invalid:1")
    await route(bus, "/services/bad/", "http://[::1")
    await applied(bus, routes=await route(bus, "/services/good/", f"http://127.0.0.1:{service.port}"))
    assert (await ask(agent.public, "/services/good/")).said["name"] == "service"
    assert (await ask(agent.public, "/services/tls/")).said["name"] == "hub"
    # Known, but without an address yet: an answer, not a connection of HAProxy to itself.
    assert (await ask(agent.public, "/services/nowhere/x")).status == 503


async def test_a_workspace_that_does_not_answer_says_so(agent: Agent, bus: Bus) -> None:
    endpoint = Endpoint(host="127.0.0.1", port=free_port())
    await applied(bus, workspaces=await put(bus, record(phase=Phase.READY, endpoint=endpoint)))
    answer = await ask(agent.public, "/user/alice/lab")
    assert answer.status == 503
    assert b"/hub/home" in answer.body


async def test_workspaces_are_served_while_the_hub_is_away(
    agent: Agent, bus: Bus, hub: Backend, backend: MakeBackend
) -> None:
    alice = await backend("alice")
    await applied(bus, workspaces=await put(bus, ready(alice)))
    port = hub.port
    await hub.stop()
    away = await ask(agent.public, "/hub/home")
    assert away.status == 503
    assert away.headers["content-type"].startswith("text/html")
    assert b"The hub is restarting" in away.body
    assert (await ask(agent.public, "/user/alice/")).said["name"] == "alice"
    await hub.start(port)
    assert (await ask(agent.public, "/hub/home")).said["name"] == "hub"


async def test_forged_forwarding_headers_reach_nobody(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    alice = await backend("alice")
    await applied(bus, workspaces=await put(bus, ready(alice)))
    forged = {
        "X-Forwarded-For": "6.6.6.1",
        "X-Real-IP": "6.6.6.2",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil",
        "X-Forwarded-User": "admin",
        "Forwarded": "for=6.6.6.3",
        "X-Scheme": "https",
        "X-ProxyScheme": "https",
        "Authorization": "token kept",
        "Cookie": "kept=1",
    }
    for port, path in ((agent.public, "/hub/"), (agent.public, "/user/alice/"), (agent.api, "/hub/api/")):
        headers = (await ask(port, path, headers=forged)).said["headers"]
        assert "6.6.6" not in str(headers)
        assert headers["x-forwarded-for"] == "127.0.0.1"
        assert headers["x-forwarded-proto"] == "http"
        assert headers["authorization"] == "token kept"
        assert not {"x-forwarded-host", "x-forwarded-user", "forwarded", "x-scheme", "x-real-ip"} & set(headers)
        assert ("cookie" in headers) == (port == agent.public)


async def test_ten_changes_at_once_are_all_served(agent: Agent, bus: Bus, backend: MakeBackend) -> None:
    servers = [await backend(f"b{number}") for number in range(5)]
    revisions = await asyncio.gather(
        *(put(bus, ready(server, user=f"u{number}")) for number, server in enumerate(servers * 2))
    )
    await applied(bus, workspaces=max(revisions))
    for number in range(10):
        assert (await ask(agent.public, f"/user/u{number}/")).said["name"] == f"b{number % 5}"
