"""One public port for TLS, plain HTTP and SSH: who gets where, and what each learns of the client."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from mlhub_shared.bus import Bus
from tests.proxy.conftest import MakeBackend, applied, put, ready
from tests.proxy.ssh_gateway import BANNER, SshGateway
from tests.proxy.stack import PROGRAMS, Agent, ask
from tests.proxy.tls import ANY
from tests.support.waiting import until_async


@pytest.fixture
async def gateway() -> AsyncIterator[SshGateway]:
    """What stands for the SSH gateway."""
    gateway = await SshGateway().start()
    yield gateway
    await gateway.stop()


async def says(port: int, first: bytes, *, host: str = "127.0.0.1", expect: int) -> tuple[bytes, int]:
    """What comes back first, and our own port."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(first)
            return await reader.readexactly(expect), writer.get_extra_info("sockname")[1]
        finally:
            writer.close()


async def ssh(port: int, host: str = "127.0.0.1") -> int:
    """Log in as far as the banner, and be echoed; returns our own port."""
    hello = b"SSH-2.0-client\r\n"
    answer, mine = await says(port, hello, host=host, expect=len(BANNER + hello))
    assert answer == BANNER + hello
    return mine


@pytest.mark.parametrize("program", PROGRAMS)
async def test_tls_http_and_ssh_are_told_apart(stopped_agent: Agent, gateway: SshGateway, program: str) -> None:
    await stopped_agent.start(TLS="on", SSH_GATEWAY=f"127.0.0.1:{gateway.port}", HAPROXY=program)
    await stopped_agent.ready()
    port = stopped_agent.public
    answer = await ask(port, "/hub/x", tls=ANY)
    assert (answer.status, answer.said["name"]) == (200, "hub")
    assert answer.said["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert answer.said["headers"]["x-forwarded-proto"] == "https"
    assert (await ask(port, "/hub/x")).status == 308
    mine = await ssh(port)
    assert gateway.clients == [("127.0.0.1", mine)]
    started = time.monotonic()
    answered, mine = await says(port, b"", expect=len(BANNER))
    assert answered == BANNER
    assert gateway.clients[1] == ("127.0.0.1", mine)
    assert time.monotonic() - started < 6
    # Who has said too little to be anything waits for the banner too.
    assert (await says(port, b"SS", expect=len(BANNER)))[0] == BANNER


@pytest.mark.parametrize("program", PROGRAMS)
async def test_ssh_is_told_apart_without_tls_as_well(
    stopped_agent: Agent, gateway: SshGateway, bus: Bus, backend: MakeBackend, program: str
) -> None:
    await stopped_agent.start(SSH_GATEWAY=f"127.0.0.1:{gateway.port}", HAPROXY=program)
    await stopped_agent.ready()
    await applied(bus, workspaces=await put(bus, ready(await backend("alice"))))
    port = stopped_agent.public
    mine = await ssh(port)
    assert gateway.clients == [("127.0.0.1", mine)]
    assert (await says(port, b"", expect=len(BANNER)))[0] == BANNER
    url = f"http://127.0.0.1:{port}"
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        # Several requests by one connection lead to where each belongs.
        for path, name in (("/user/alice/x", "alice"), ("/hub/x", "hub"), ("/user/alice/y", "alice")):
            async with session.put(url + path, data=io.BytesIO(bytes(3_000_000))) as answer:
                said = await answer.json()
                assert (said["name"], said["size"]) == (name, 3_000_000)
                assert said["headers"]["x-forwarded-for"] == "127.0.0.1"
                assert said["headers"]["x-forwarded-proto"] == "http"
        async with session.ws_connect(url + "/user/alice/ws") as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "alice:hello"
    assert (await says(port, b"nonsense\r\n\r\n", expect=12))[0] == b"HTTP/1.1 400"


async def test_the_gateway_may_be_a_socket_and_the_client_on_ipv6(
    stopped_agent: Agent, tmp_path: Path, gateway: SshGateway
) -> None:
    await gateway.stop()
    await gateway.start(tmp_path / "ssh.sock")
    await stopped_agent.start(TLS="on", SSH_GATEWAY=f"unix:{tmp_path}/ssh.sock", PUBLIC_HOST="::")
    await stopped_agent.ready()
    port = stopped_agent.public
    for host in ("::1", "127.0.0.1"):
        mine = await ssh(port, host)
        assert gateway.clients[-1] == (host, mine)
        said = (await ask(port, "/", host=host, tls=ANY)).said
        assert said["headers"]["x-forwarded-for"] == host
        assert (await ask(port, "/", host=host)).status == 308


async def test_networks_of_workspaces_get_nothing_of_the_port(stopped_agent: Agent, gateway: SshGateway) -> None:
    address = f"127.0.0.1:{gateway.port}"
    await stopped_agent.start(TLS="on", SSH_GATEWAY=address, REFUSED_NETWORKS="127.0.0.0/8", PUBLIC_HOST="::")
    await stopped_agent.ready()
    port = stopped_agent.public
    for attempt in (ask(port, "/"), ask(port, "/", tls=ANY), ssh(port), says(port, b"", expect=1)):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await attempt
    assert gateway.clients == []
    assert (await ask(port, "/", host="::1", tls=ANY)).status == 200


LOCATIONS = {
    "hub.example": "https://hub.example/a/b%20c?d=e&f=//g",
    "HUB.example:80": "https://hub.example/a/b%20c?d=e&f=//g",
    "hub.example:8443": "https://hub.example:8443/a/b%20c?d=e&f=//g",
    "[::1]:8443": "https://[::1]:8443/a/b%20c?d=e&f=//g",
}
NO_HOSTS = (
    "evil@hub.example",
    "hub.example/",
    "hub.example\\@evil",
    "hub.example?x",
    "a b",
    "",
    "hub:80:80",
    "x%0d%0ay",
    "#",
)


async def test_plain_http_is_sent_to_https(tls_agent: Agent) -> None:
    for host, location in LOCATIONS.items():
        for method in ("GET", "POST"):
            answer = await ask(tls_agent.public, "/a/b%20c?d=e&f=//g", headers={"Host": host}, method=method)
            assert (answer.status, answer.headers["location"]) == (308, location)
            # Or browsers would keep to it when TLS is long off.
            assert answer.headers["cache-control"] == "no-store"


async def test_no_host_and_no_path_makes_the_redirect_lead_elsewhere(tls_agent: Agent) -> None:
    for host in NO_HOSTS:
        answer = await ask(tls_agent.public, "/", headers={"Host": host})
        assert (host, answer.status) == (host, 400)
        assert "location" not in answer.headers
    for path in ("//evil.example/", "/\\evil.example", "/.evil.example", "/@evil.example"):
        answer = await ask(tls_agent.public, path)
        assert answer.headers["location"] == f"https://hub.example{path}"
    assert (await ask(tls_agent.public, "http://evil.example/x")).status == 400


@pytest.mark.parametrize("tls", ["on", "off"])
async def test_only_trusted_proxies_say_who_the_client_is(stopped_agent: Agent, tls: str) -> None:
    context, own = (ANY, "https") if tls == "on" else (None, "http")
    spoofed = {
        "X-Forwarded-For": "10.1.2.3, 192.0.2.7",
        "X-Forwarded-Proto": "https" if tls == "off" else "http",
        "X-Forwarded-Host": "evil.example",
        "X-Real-IP": "192.0.2.7",
        "Forwarded": "for=192.0.2.7",
    }
    await stopped_agent.start(TLS=tls, TRUSTED_PROXIES="10.9.8.0/24")
    await stopped_agent.ready()
    said = (await ask(stopped_agent.public, "/", headers=spoofed, tls=context)).said["headers"]
    assert (said["x-forwarded-for"], said["x-forwarded-proto"]) == ("127.0.0.1", own)
    assert not {"x-forwarded-host", "x-real-ip", "forwarded"} & said.keys()
    await stopped_agent.stop()

    await stopped_agent.start(TRUSTED_PROXIES="10.9.8.0/24,127.0.0.0/8")
    await stopped_agent.ready()
    said = (await ask(stopped_agent.public, "/", headers=spoofed, tls=context)).said["headers"]
    assert (said["x-forwarded-for"], said["x-forwarded-proto"]) == ("192.0.2.7", spoofed["X-Forwarded-Proto"])
    assert not {"x-forwarded-host", "x-real-ip", "forwarded"} & said.keys()
    for nonsense in ({}, {"X-Forwarded-For": "nobody", "X-Forwarded-Proto": "gopher"}):
        said = (await ask(stopped_agent.public, "/", headers=nonsense, tls=context)).said["headers"]
        assert (said["x-forwarded-for"], said["x-forwarded-proto"]) == ("127.0.0.1", own)


async def test_handshakes_that_never_end_keep_nobody_else_out(stopped_agent: Agent, gateway: SshGateway) -> None:
    await stopped_agent.start(TLS="on", SSH_GATEWAY=f"127.0.0.1:{gateway.port}", MAX_CONNECTIONS="200")
    await stopped_agent.ready()
    port, writers = stopped_agent.public, []
    try:
        for _ in range(150):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            writer.write(b"\x16\x03\x01\x02\x00\x01")
            await asyncio.sleep(0)

        async def serves() -> bool:
            with suppress(ConnectionError):
                return await _from_elsewhere(port) == 200
            return False

        await until_async(serves)
        assert await ssh(port)
    finally:
        for writer in writers:
            writer.close()


async def _from_elsewhere(port: int) -> int:
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0), ssl=False)
    url = f"https://127.0.0.1:{port}/"
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
        return answer.status


@pytest.fixture
async def tls_agent(stopped_agent: Agent) -> Agent:
    """A ready one with TLS, without SSH."""
    await stopped_agent.start(TLS="on")
    await stopped_agent.ready()
    return stopped_agent
