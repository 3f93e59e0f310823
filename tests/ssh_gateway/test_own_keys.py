"""The keys that workspaces show, asked for by the real thing."""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import asyncssh
import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.workspace import Endpoint, Phase, WorkspaceSpec
from mlhub_shared.tasks import end_tasks
from mlhub_ssh_gateway.own_keys import OwnKeys
from tests.support.makers import record, workspace
from tests.support.waiting import until


@dataclass
class Shower:
    """A workspace of such an image."""

    user: str
    key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    answer: bytes | None = None
    """None: the key."""
    is_busy: bool = False
    """Takes whoever asks, and says nothing."""
    port: int = 0
    asked: int = 0
    given_up: int = 0
    """Askers who did not wait any longer."""

    @property
    def fingerprint(self) -> str:
        return self.key.get_fingerprint()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        self.asked += 1
        if self.is_busy:
            await reader.read()
            self.given_up += 1
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + (self.answer or self.key.export_public_key()))
        writer.close()


class Clock:
    """The loop's, with time that a test need not wait for."""

    skipped = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.skipped


@dataclass
class Town:
    """Workspaces, and what looks at them."""

    bus: Bus
    own_keys: OwnKeys
    clock: Clock
    running: "asyncio.Task[None]"
    stack: AsyncExitStack

    async def add(self, shower: Shower) -> Shower:
        """Start a workspace."""
        server = await self.stack.enter_async_context(await asyncio.start_server(shower.serve, "127.0.0.1", 0))
        shower.port = server.sockets[0].getsockname()[1]
        await self.put(shower)
        return shower

    async def put(self, shower: Shower, **fields: object) -> None:
        """Do what the worker does."""
        endpoint = Endpoint(host="127.0.0.1", port=shower.port)
        value = record(shower.user, **({"spec": WorkspaceSpec(own_ssh=True), "endpoint": endpoint} | fields))  # type: ignore[arg-type]
        await self.bus.workspaces.put(value.name, value)

    def shows(self, shower: Shower) -> bool:
        return self.own_keys.shows(workspace(shower.user), shower.fingerprint)


@asynccontextmanager
async def make_town(bus: Bus) -> AsyncIterator[Town]:
    clock = Clock()
    own_keys = OwnKeys(bus.start_table(bus.workspaces), clock)
    async with AsyncExitStack() as stack:
        running = asyncio.ensure_future(own_keys.run())
        try:
            yield Town(bus, own_keys, clock, running, stack)
        finally:
            await end_tasks(running)


@pytest.fixture
async def town(bus: Bus) -> AsyncIterator[Town]:
    async with make_town(bus) as town:
        yield town


def line(kind: bytes, *parts: bytes) -> bytes:
    """A key as it is written, of whatever numbers."""
    packed = b"".join(struct.pack(">I", len(part)) + part for part in (kind, *parts))
    return kind + b" " + base64.b64encode(packed)


@pytest.mark.parametrize(
    "bad",
    [
        line(b"ecdsa-sha2-nistp256", b"nistp256", b"\4" + b"a" * 64),
        line(b"ecdsa-sha2-nistp256", b"nistp256", b""),
        line(b"ssh-ed25519", b""),
        line(b"ssh-rsa", b"\1", b"\1"),
        line(b"ssh-rsa", b"\3", b"\xff" * 100),
        b"ssh-ed25519 \xff\xff",
    ],
    ids=range(6),
)
async def test_one_that_shows_bad_numbers_is_none_of_the_others_trouble(town: Town, bad: bytes) -> None:
    hostile = await town.add(Shower("mallory", answer=bad))
    await until(lambda: hostile.asked > 0)
    alice = await town.add(Shower("alice"))
    await until(lambda: town.running.done() or town.shows(alice))
    assert not town.running.done()
    assert not town.shows(hostile)


async def test_a_key_is_kept_while_its_workspace_is_too_busy_to_say_it_again(town: Town) -> None:
    alice = await town.add(Shower("alice"))
    await until(lambda: town.shows(alice))
    alice.is_busy, town.clock.skipped = True, 121
    await until(lambda: alice.asked >= 3)
    assert town.shows(alice)
    alice.is_busy, alice.answer, town.clock.skipped = False, b"no key any more", 242
    await until(lambda: not town.shows(alice))


async def test_a_key_does_not_outlive_its_endpoint(town: Town) -> None:
    alice = await town.add(Shower("alice"))
    await until(lambda: town.shows(alice))
    alice.is_busy = True
    await town.put(alice, endpoint=Endpoint(host="127.0.0.2", port=alice.port))
    await until(lambda: not town.shows(alice))


async def test_those_who_do_not_answer_hold_up_no_news_of_the_others(town: Town) -> None:
    silent = await town.add(Shower("mallory", is_busy=True))
    for number in range(40):
        await town.put(replace(silent, user=f"mallory{number}"))
    await until(lambda: silent.asked > 1)
    alice = await town.add(Shower("alice"))
    await until(lambda: town.shows(alice))
    await town.put(alice, phase=Phase.STOPPED)
    await until(lambda: not town.shows(alice))
    assert silent.given_up < 40
