"""From one server to three, which keep nothing of what it has: that goes along by a backup."""

import asyncio
import contextlib
import json
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


async def test_the_bus_moves_from_one_server_to_three_by_a_backup(tmp_path: Path) -> None:
    names = [config.name for config in streams(Subjects("test")) if config.name]
    backups = await _of_one_server(tmp_path, names)
    files = configuration("production", tmp_path / "made")
    login = {"user": "mlhub", "password": files["password"]}
    ports = {port: [free_port() for _ in range(3)] for port in ("4222", "6222", "8222")}
    servers = [Server(tmp_path / str(number), number, ports) for number in range(3)]
    for server in servers:
        server.write(files)
    urls = [f"nats://127.0.0.1:{server.client}" for server in servers]
    async with running(servers):
        await until(lambda: all(server.is_healthy() for server in servers))
        client = await nats.connect(urls, **login)
        for backup in backups:
            await backup.restore(client)
        bus = await Bus.open(BusSettings(url=",".join(urls), hub="test", service="hub", replicas=3, **login))
        try:
            assert (entry := await bus.nodes.get("before")) is not None
            assert entry.value.draining
            copies = {name: (await client.jetstream().stream_info(name)).config.num_replicas for name in names}
            assert set(copies.values()) == {3}
        finally:
            await bus.close()
            await client.close()


async def _of_one_server(folder: Path, names: list[str]) -> list[Backup]:
    """Of each stream, made when nobody uses it any more."""
    files = configuration("single", folder / "made-alone")
    server = Server(folder / "alone", 0, {port: [free_port()] for port in ("4222", "8222")})
    server.write(files)
    url, password = f"nats://127.0.0.1:{server.client}", files["password"]
    async with running([server]):
        await until(server.is_healthy)
        bus = await Bus.open(BusSettings(url=url, hub="test", service="hub", user="mlhub", password=password))
        await bus.nodes.put("before", NodeMark(draining=True))
        await bus.close()
        client = await nats.connect(url, user="mlhub", password=password)
        try:
            return [await Backup.of(client, name) for name in names]
        finally:
            await client.close()
