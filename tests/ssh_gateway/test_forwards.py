"""Where forwarded connections may lead, and the workspaces that have an SSH server of their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncssh
import pytest
from pydantic import ValidationError

from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.workspace import Endpoint, Phase, WorkspaceSpec
from mlhub_ssh_gateway.destinations import Place as Side
from mlhub_ssh_gateway.destinations import parse_pattern, place_of
from mlhub_ssh_gateway.settings import SshGatewaySettings
from tests.ssh_gateway.place import Place
from tests.support.makers import workspace
from tests.support.openssh import OpenSsh
from tests.support.ports import free_port
from tests.support.waiting import until, until_async

BANNER = b"SSH-2.0-the-workspace's-own\r\n"
OWN_SSH = WorkspaceSpec(own_ssh=True)


@dataclass
class Image:
    """A workspace whose one port answers both a browser and an SSH client, as images of old do."""

    key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    port: int = 0
    answer: bytes | None = None
    """To whoever asks for the key; None: the key."""
    asked: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readline()
        if first.startswith(b"GET /publickey "):
            body = self.answer if self.answer is not None else self.key.export_public_key()
            self.asked += 1
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
        else:
            writer.write(BANNER + first)
        writer.close()


@asynccontextmanager
async def running(place: Place, user: str, answer: bytes | None = None) -> AsyncIterator[Image]:
    """A user's workspace of such an image."""
    image = Image(answer=answer)
    async with await asyncio.start_server(image.serve, "127.0.0.1", 0) as server:
        image.port = server.sockets[0].getsockname()[1]
        await place.put(user, spec=OWN_SSH, endpoint=Endpoint(host="127.0.0.1", port=image.port))
        yield image


@pytest.fixture
async def image(place: Place) -> AsyncIterator[Image]:
    """Alice's workspace."""
    async with running(place, "alice") as image:
        yield image


async def reaches(place: Place, key: asyncssh.SSHKey, user: str, port: int, login: str = "limited-user") -> bool:
    """Whether somebody gets to the SSH server of a user's workspace, as old set-up scripts do it."""
    client = OpenSsh(place.folder / "limited", place.settings.listen_port, key=key)
    ran = await client.run(login, options=("-W", f"{workspace(user).name}:{port}"), stdin=b"SSH-2.0-client\r\n")
    return ran.stdout == BANNER + b"SSH-2.0-client\r\n"


async def test_a_workspaces_own_key_leads_to_that_workspace_alone(place: Place, image: Image) -> None:
    await until_async(lambda: reaches(place, image.key, "alice", image.port))
    assert await reaches(place, image.key, "alice", 8080)
    async with running(place, "bob") as other:
        await until_async(lambda: reaches(place, other.key, "bob", other.port))
        assert not await reaches(place, image.key, "bob", other.port)
        denied = (await place.events(EventKind.ACCESS_DENIED))[0]
        assert (denied.requester, denied.workspace) == ("user:alice", workspace("bob"))
    assert not await reaches(place, image.key, "alice", image.port + 1)
    assert not await reaches(place, image.key, "alice", image.port, login="alice")
    opened = (await place.events(EventKind.SESSION_OPENED))[0]
    assert (opened.workspace, opened.detail["method"]) == (workspace("alice"), "workspace-key")


async def test_a_workspaces_own_key_opens_nothing_else(place: Place, image: Image) -> None:
    await until_async(lambda: reaches(place, image.key, "alice", image.port))
    async with place.connect("limited-user", image.key) as connection:
        for host, port in (("localhost", image.port), ("127.0.0.1", place.settings.listen_port), ("192.0.2.1", 80)):
            with pytest.raises(asyncssh.ChannelOpenError, match="own SSH server"):
                await connection.open_connection(host, port)
        with pytest.raises(asyncssh.ChannelOpenError, match="own SSH server"):
            await connection.run("true")
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("localhost", 0, "localhost", 9)


async def test_a_workspace_that_shows_anothers_key_gets_nothing_by_it(place: Place) -> None:
    """Neither what its owner, nor what another user of the hub does with that key."""
    named = await place.client("limited-user")
    await place.put("limited-user")
    async with running(place, "bob", named.key.export_public_key()):
        async with running(place, "alice") as image, running(place, "carol", image.key.export_public_key()):
            await until_async(lambda: reaches(place, image.key, "alice", image.port))
            opened = await place.events(EventKind.SESSION_OPENED)
            assert (opened[0].workspace, opened[0].requester) == (workspace("alice"), "user:alice")
        assert (await named.run("limited-user", "pwd")).stdout.decode().strip() == str(place.directory("limited-user"))


async def test_a_key_is_forgotten_with_its_workspace(place: Place, image: Image) -> None:
    await until_async(lambda: reaches(place, image.key, "alice", image.port))
    await place.put("alice", phase=Phase.STOPPED, spec=OWN_SSH)

    async def is_refused() -> bool:
        return not await reaches(place, image.key, "alice", image.port)

    await until_async(is_refused)


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"ssh-ed25519", b"ssh-ed25519 AAAA", b"ssh-dss AAAAB3NzaC1kc3M=", b"\n" * 20_000 + b"KEY"],
)
async def test_what_is_no_key_lets_nobody_in(place: Place, answer: bytes) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    async with running(place, "alice", answer.replace(b"KEY", key.export_public_key())) as image:
        await until(lambda: image.asked > 1)
        assert not await reaches(place, key, "alice", image.port)
        assert (await (await place.client("alice")).run("alice", "echo in")).stdout == b"in\n"


async def test_owners_reach_it_by_its_name(place: Place, image: Image) -> None:
    alice = await place.client("alice")
    assert await reaches(place, alice.key, "alice", image.port, login="alice")
    bob = await place.client("bob")
    assert not await reaches(place, bob.key, "alice", image.port, login="alice")


async def test_a_workspaces_name_means_its_own_ports(place: Place) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    alice = await place.client("alice")
    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for host in (workspace("alice").name, "LOCALHOST", "127.0.0.1"):
            assert (await alice.run("alice", options=("-W", f"{host}:{port}"))).stdout == b"hello\n"


async def test_outward_leads_where_an_administrator_lets_it(quiet_place: Place) -> None:
    place, port = quiet_place, free_port()

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    await place.put("alice")
    alice = await place.client("alice")
    async with await asyncio.start_server(greet, "127.0.0.5", port):
        for outward, expected in (
            ((), b""),
            ((f"127.0.0.6:{port}",), b""),
            (("127.0.0.5:1",), b""),
            ((f"127.0.0.*:{port}",), b"hello\n"),
            (("*",), b"hello\n"),
        ):
            async with place.gateway(forward_outward=outward):
                assert (await alice.run("alice", options=("-W", f"127.0.0.5:{port}"))).stdout == expected


@pytest.mark.parametrize(
    ("pattern", "host", "port", "fits"),
    [
        ("db.example.org:5432", "DB.example.org", 5432, True),
        ("db.example.org:5432", "db.example.org", 5433, False),
        ("db.example.org:5432", "dbxexample.org", 5432, False),
        ("*.example.org:*", "a.example.org", 1, True),
        ("*.example.org:*", "example.org", 1, False),
        ("[2001:db8::1]:22", "2001:db8::1", 22, True),
        ("*", "anything", 1, True),
    ],
)
def test_patterns(pattern: str, host: str, port: int, fits: bool) -> None:
    assert (place_of(host, port, "ws-alice-test", outward=[parse_pattern(pattern)]) is Side.OUTWARD) is fits


@pytest.mark.parametrize("text", ["example.org", "a b:1", "a:b", "?.org:1", "a:1:2"])
def test_what_is_no_pattern_is_no_setting(text: str) -> None:
    with pytest.raises(ValidationError):
        SshGatewaySettings(hub_name="test", forward_outward=text)
