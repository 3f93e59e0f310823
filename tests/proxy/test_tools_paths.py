"""Tricks with paths and requests: none reaches a port, or an image's own tools, without the hub's word."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from tests.proxy.toolhouse import TOOL, House, running_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE, THERE, OWN = "/user/alice/lab/", "/user/victim/lab/", "/user/alice/old/"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """Two users' workspaces with any port, and one whose image has tools of its own."""
    async with running_house(tmp_path_factory.mktemp("house")) as made:
        await made.open("alice", "lab")
        await made.open("alice")
        await made.open("victim", "lab")
        await made.open("alice", "old", own=True)
        yield made


async def raw(house: House, head: bytes) -> tuple[int, bytes]:
    """Status and body of a request as it is written; 0 where the connection was just closed."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.agent.public)
        try:
            writer.write(head)
            answer = await reader.read()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
    top, _, body = answer.partition(b"\r\n\r\n")
    return (int(top.split(b" ", 2)[1]) if top else 0), body


def request(target: bytes, *lines: bytes, method: bytes = b"GET", host: bytes = b"Host: hub.example") -> bytes:
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", host, b"Connection: close", *lines, b"", b""])


def said_by(body: bytes) -> object:
    """Who answered, of the two servers behind the proxy; None: neither."""
    with suppress(ValueError):
        return json.loads(body).get("name")
    return None


def ways(prefix: str) -> list[str]:
    """Ways to write the address of a port that something on the way might read as that."""
    port = f"{prefix}tools/{TOOL}/"
    root = "/".join(prefix.split("/")[:3])
    return [
        port,
        port.rstrip("/") + "/x",
        f"{prefix}/tools/{TOOL}/",
        f"{prefix}./tools/{TOOL}/",
        f"{prefix}x/../tools/{TOOL}/",
        f"{prefix}%2e/tools/{TOOL}/",
        f"{prefix}x/%2e%2e/tools/{TOOL}/",
        f"{prefix}x%2f..%2ftools/{TOOL}/",
        f"{prefix}tools%2f{TOOL}/",
        f"{prefix}tools%2F{TOOL}%2F",
        f"{prefix}%74ools/{TOOL}/",
        f"{prefix}%2574ools/{TOOL}/",
        f"{prefix}TOOLS/{TOOL}/",
        f"{prefix}tools/%38050/",
        f"{prefix}tools//{TOOL}/",
        f"{prefix}tools/{TOOL}%20/",
        f"{prefix}tools/{TOOL};x/",
        f"{prefix}tools;x/{TOOL}/",
        f"{prefix}..;/lab/tools/{TOOL}/",
        f"{prefix}tools/{TOOL}%00/",
        f"{prefix}tools%00/{TOOL}/",
        f"{prefix}tools\\{TOOL}/",
        f"{prefix}\\tools/{TOOL}/",
        f"{prefix}tools/+{TOOL}/",
        f"{prefix}tools/{TOOL}.0/",
        f"{prefix}tools/0x1f72/",
        f"{prefix}tools/{TOOL}?/../..",
        f"{prefix}tools/{TOOL}#/",
        f"{prefix}?/tools/{TOOL}/",
        f"/{prefix}tools/{TOOL}/",
        f"/hub/..{prefix}tools/{TOOL}/",
        f"/hub-tools/..{prefix}tools/{TOOL}/",
        f"/hub-tools/..%2f{prefix[1:]}tools/{TOOL}/",
        f"{root}/%6cab/tools/{TOOL}/",
        f"{root}//lab/tools/{TOOL}/",
        f"http://hub.example{port}",
        f"http://hub.example:80{prefix}tools/{TOOL}/",
    ]


@pytest.mark.parametrize("way", range(len(ways(HERE))))
async def test_no_way_to_write_a_port_opens_it_to_strangers(house: House, way: int) -> None:
    written = ways(HERE)[way].encode()
    for lines in ([], [b"Cookie: mlhub-tools=x.y"], [b"Upgrade: websocket", b"Authorization: Bearer nobody"]):
        status, body = await raw(house, request(written, *lines))
        assert said_by(body) != "tool", (written, status, body)


@pytest.mark.parametrize("way", range(len(ways(THERE))))
async def test_no_way_to_write_a_path_leads_from_the_own_workspace_to_another_ones_port(house: House, way: int) -> None:
    token = f"Authorization: token {await house.token('alice')}".encode()
    status, body = await raw(house, request(ways(THERE)[way].encode(), token))
    assert said_by(body) != "tool", (status, body)


@pytest.mark.parametrize(
    "rest",
    [
        "../../../victim/lab/tools/8050/",
        "..%2f..%2f..%2fvictim%2flab%2ftools%2f8050%2f",
        "%2e%2e/%2e%2e/%2e%2e/victim/lab/tools/8050/",
        "..%5c..%5c..%5cvictim/lab/tools/8050/",
        "..;/..;/..;/victim/lab/tools/8050/",
    ],
)
async def test_below_a_port_there_is_but_that_port(house: House, rest: str) -> None:
    before = [question.workspace.user for question in house.questions].count("victim")
    token = f"Authorization: token {await house.token('alice')}".encode()
    status, body = await raw(house, request(f"{HERE}tools/{TOOL}/{rest}".encode(), token))
    if said_by(body) == "tool":
        assert json.loads(body)["headers"]["x-forwarded-prefix"] == f"{HERE}tools/{TOOL}"
    else:
        # Out of the port is out of the tool: to the same user's default workspace, or to nobody.
        assert status == 403 or json.loads(body)["path"].startswith("/user/alice/")
    assert [question.workspace.user for question in house.questions].count("victim") == before


@pytest.mark.parametrize(
    "head",
    [
        request(b"/hub/home", b"Host: x", host=f"Host: hub.example{HERE}tools/{TOOL}/".encode()),
        request(f"{HERE}tools/{TOOL}/".encode(), b"Host: elsewhere"),
        request(f"http://elsewhere{HERE}tools/{TOOL}/".encode()),
        request(f"{HERE}tools/{TOOL}/".encode(), b"Cookie: a=1", b"Cookie: mlhub-tools=x.y"),
        request(f"{HERE}tools/{TOOL}/".encode(), b"Authorization: token a", b"Authorization: token b"),
        request(f"{HERE}tools/{TOOL}/".encode(), b"Transfer-Encoding: chunked", b"Content-Length: 5", method=b"POST"),
        request(f"{HERE}tools/{TOOL}/ HTTP/1.1\r\nX: ".encode()),
        request(f"{HERE}tools/{TOOL}/\x00".encode()),
        request(f"{HERE}tools/\x00{TOOL}/".encode()),
        request(f"{HERE}tools/{TOOL}/\x7f\xff".encode("latin-1")),
        request(f"{HERE}tools/{TOOL}/".encode(), method=b"CONNECT"),
        request(b"hub.example:80", method=b"CONNECT"),
        request(b"*", method=b"OPTIONS"),
        request(f"{HERE}tools/{TOOL}/".encode(), b"X-Tools-Answer: 1", b"X-Tools-Ip: 127.0.0.1", b"X-Session: x"),
        request(f"{HERE}tools/{TOOL}/".encode(), b"X-HTTP-Method-Override: GET", b"X-Original-URL: /hub/home"),
        f"GET {HERE}tools/{TOOL}/ HTTP/1.0\r\n\r\n".encode(),
        f"GET {HERE}tools/{TOOL}/\r\n\r\n".encode(),
    ],
)
async def test_no_malformed_request_opens_a_port(house: House, head: bytes) -> None:
    status, body = await raw(house, head)
    assert said_by(body) is None, (status, body)


@pytest.mark.parametrize("count", [1, 60, 200])
async def test_a_long_request_is_answered_or_refused(house: House, count: int) -> None:
    token = f"Authorization: token {await house.token('alice')}".encode()
    head = request(f"{HERE}tools/{TOOL}/{'x' * 60 * count}".encode(), token, b"X-Long: " + b"y" * 60 * (200 - count))
    status, body = await raw(house, head)
    assert (status == 200 and said_by(body) == "tool") or status in {400, 414, 431, 500, 503}


# Images with tools of their own


OWN_WAYS = [
    "tools/vnc/",
    "tools/8050/",
    "tools/vnc/websockify?token=x",
    "tools/",
    "TOOLS/vnc/",
    "Tools/8050/",
    "x%2f..%2ftOOLS%2fvnc%2f",
    "/tools/vnc/",
    "x/../tools/vnc/",
    "x%2f..%2ftools%2fvnc%2f",
    "tools%2fvnc/",
    "%2ftools/vnc/",
    "%74ools/vnc/",
    ".//tools/vnc/",
    "..%2fold%2ftools%2fvnc%2f",
    "x\\..\\tools\\vnc\\",
]


@pytest.mark.parametrize("way", OWN_WAYS)
async def test_the_tools_of_an_image_need_the_hubs_word_and_keep_their_path(house: House, way: str) -> None:
    assert (await house.ask(OWN + way)).status == 401
    assert (await house.ask(OWN + way, await house.token("victim"))).status == 403
    assert (await house.ask(OWN + way, await house.token("alice", "read:users:name!user"))).status == 403
    token = await house.token("alice")
    answer = await house.ask(OWN + way, token, Cookie="jupyterhub-user-alice=theirs; mlhub-tools=ours")
    assert answer.said["name"] == "workspace"
    assert answer.said["path"].startswith(OWN)
    # The image asks its own Jupyter with them.
    assert answer.said["headers"]["authorization"] == f"token {token}"
    assert answer.said["headers"]["cookie"] == "jupyterhub-user-alice=theirs"


@pytest.mark.parametrize(
    "path",
    [
        "shared/tools/8080/?token=x",
        "shared/filebrowser/",
        "tooling/ping",
        "tree/tools/",
        "lab?tools/x",
        "",
        "%2574ools/",
    ],
)
async def test_all_else_of_such_an_image_is_its_own_to_guard(house: House, path: str) -> None:
    answer = await house.ask(OWN + path)
    assert (answer.said["name"], answer.said["path"]) == ("workspace", OWN + path)
