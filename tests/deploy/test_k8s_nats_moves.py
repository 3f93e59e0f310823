"""From one server to three, which keep nothing of what it has: that goes along by a backup, and stays where it was."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from mlhub_shared.bus import Bus, BusSettings
from mlhub_shared.bus.provision import streams
from mlhub_shared.contracts.services import NodeMark
from mlhub_shared.contracts.subjects import Subjects
from tests.deploy.test_k8s_nats import Server, configuration, running
from tests.support.ports import free_port
from tests.support.waiting import until

WITHIN = 20
STREAMS = [config.name for config in streams(Subjects("test")) if config.name]


@dataclass(frozen=True)
class Backup:
    """Of one stream: what `nats account backup` writes into its folder."""

    name: str
    described: dict[str, Any]
    chunks: list[bytes]

    @classmethod
    async def of(cls, client: Client, name: str) -> "Backup":
        inbox = await client.subscribe(subject := client.new_inbox())
        described = await _ask(client, f"SNAPSHOT.{name}", deliver_subject=subject, chunk_size=65536)
        chunks = []
        while (message := await inbox.next_msg(timeout=WITHIN)).data:
            chunks.append(message.data)
            if message.reply:
                await message.respond(b"")
        return cls(name, described, chunks)

    async def restore(self, client: Client) -> None:
        described = {key: self.described[key] for key in ("config", "state")}
        subject = (await _ask(client, f"RESTORE.{self.name}", **described))["deliver_subject"]
        for chunk in [*self.chunks, b""]:
            answer = await _sent(client, subject, chunk)
        assert "error" not in json.loads(answer.data)


async def _sent(client: Client, subject: str, chunk: bytes) -> Msg:
    """The answer to a chunk; the server that takes it may be another one, whose wish has not got around yet."""
    async with asyncio.timeout(WITHIN):
        while True:
            with contextlib.suppress(NoRespondersError):
                return await client.request(subject, chunk, timeout=WITHIN)
            await asyncio.sleep(0.05)


async def _ask(client: Client, what: str, **request: Any) -> dict[str, Any]:
    answer = await client.request(f"$JS.API.STREAM.{what}", json.dumps(request).encode(), timeout=WITHIN)
    found: dict[str, Any] = json.loads(answer.data)
    assert "error" not in found, found
    return found


class House:
    """Where the servers' volumes are: those of an overlay find what those of another have left there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.asynccontextmanager
    async def servers(self, overlay: str) -> AsyncIterator[tuple[Client, BusSettings]]:
        """As many as the overlay has; whoever opens the bus makes what is missing there."""
        files = configuration(overlay, self._folder / f"made-{free_port()}")
        number = {"single": 1, "production": 3}[overlay]
        ports = {port: [free_port() for _ in range(number)] for port in ("4222", "6222", "8222")}
        servers = [Server(self._folder / str(each), each, ports) for each in range(number)]
        for server in servers:
            server.write(files)
        urls = [f"nats://127.0.0.1:{server.client}" for server in servers]
        password = files["password"]
        async with running(servers):
            await until(lambda: all(server.is_healthy() for server in servers))
            client = await nats.connect(urls, user="mlhub", password=password)
            try:
                yield (
                    client,
                    BusSettings(
                        url=",".join(urls), hub="test", service="hub", user="mlhub", password=password, replicas=number
                    ),
                )
            finally:
                await client.close()


async def marks(settings: BusSettings, new: str = "") -> set[str]:
    """What is there of what was written, with one more."""
    bus = await Bus.open(settings)
    try:
        if new:
            await bus.nodes.put(new, NodeMark(draining=True))
        return {key for key in ("first", "second") if await bus.nodes.get(key)}
    finally:
        await bus.close()


async def test_the_bus_moves_from_one_server_to_three_by_a_backup(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.servers("single") as (client, settings):
        await marks(settings, "first")
        backups = [await Backup.of(client, name) for name in STREAMS]
    async with house.servers("production") as (client, settings):
        for backup in backups:
            await backup.restore(client)
        assert await marks(settings) == {"first"}
        found = [await client.jetstream().stream_info(name) for name in STREAMS]
        assert {stream.config.num_replicas for stream in found} == {3}


async def test_three_servers_let_the_store_be_that_one_had(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.servers("single") as (_, settings):
        assert await marks(settings, "first") == {"first"}
    async with house.servers("production") as (_, settings):
        assert await marks(settings, "second") == {"second"}
    async with house.servers("single") as (_, settings):
        assert await marks(settings) == {"first"}
