"""The worker as it is deployed: a process of its own, killed at any moment, with the real JupyterLab too."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from mlhub_shared.bus import Bus, Table
from mlhub_shared.contracts.commands import Command, DeleteWorkspace, SpawnWorkspace
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord, WorkspaceSecrets
from tests.support.makers import delete, spawn, stop, workspace
from tests.support.nats_server import PASSWORD, USER, NatsServer
from tests.support.waiting import until, until_async
from tests.support.workers import FAKE_SERVER, People, direct

ALICE = workspace().name


class ProbeFrontend:
    """Routes `<base_url>api` by the records, as the proxy's probe frontend does."""

    def __init__(self, table: Table[WorkspaceRecord]) -> None:
        self._table = table

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readline()).decode().split()[1]
        known = {f"{record.base_url}api": record for record in self._table.values()}
        is_up = path in known and await direct(known[path])
        writer.write(f"HTTP/1.1 {'200 OK' if is_up else '503 No'}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()


class Service:
    """`python -m mlhub_spawner_worker` with its data directory."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self._environment = folder, environment
        self._process: asyncio.subprocess.Process | None = None
        self._starts = 0

    async def start(self, **more: str) -> None:
        with (self.folder.parent / "worker.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "mlhub_spawner_worker", stdout=log, stderr=log, env=self._environment | more
            )

    async def is_up(self) -> None:
        """Wait until it says that it has started."""
        self._starts += 1
        await until(lambda: self.log().count("service.started") >= self._starts, within=20)

    async def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await asyncio.wait_for(self._process.wait(), 20)

    def workspaces(self) -> dict[int, str]:
        """Process ids of everything that carries a marker and lives in this directory, with the workspace's name."""
        found = {}
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                variables = Path(f"/proc/{entry}/environ").read_bytes().decode(errors="replace").split("\0")
                values = dict(variable.split("=", 1) for variable in variables if "=" in variable)
                if values.get("HOME", "").startswith(str(self.folder)):
                    found[int(entry)] = values.get("MLHUB_WORKSPACE", "")
        return found

    def log(self) -> str:
        return (self.folder.parent / "worker.log").read_text()


@pytest.fixture
async def service(nats_server: NatsServer, bus: Bus, tmp_path: Path) -> AsyncIterator[Service]:
    table = bus.start_table(bus.workspaces)
    frontend = await asyncio.start_server(ProbeFrontend(table).answer, "127.0.0.1", 0)
    environment = {
        "PATH": os.environ["PATH"],
        "MLHUB_HUB_NAME": "test",
        "MLHUB_NATS_URL": nats_server.url,
        "MLHUB_NATS_USER": USER,
        "MLHUB_NATS_PASSWORD": PASSWORD,
        "MLHUB_LOG_FORMAT": "json",
        "MLHUB_SPAWNER_WORKER_NODE": "n1",
        "MLHUB_SPAWNER_WORKER_CAPACITY": "",
        "MLHUB_SPAWNER_WORKER_DATA_DIR": str(tmp_path / "data"),
        "MLHUB_SPAWNER_WORKER_STOP_GRACE": "0.5",
        "MLHUB_SPAWNER_WORKER_COMMAND": FAKE_SERVER,
        "MLHUB_SPAWNER_WORKER_PROBE_URL": f"http://127.0.0.1:{frontend.sockets[0].getsockname()[1]}",
    }
    service = Service(tmp_path / "data", environment)
    yield service
    with contextlib.suppress(AssertionError):
        await service.end(signal.SIGKILL)
    for pid in service.workspaces():
        os.kill(pid, signal.SIGKILL)
    frontend.close()


async def test_a_worker_killed_and_restarted_finds_its_workspace(service: Service, people: People) -> None:
    await service.start()
    await people.send(spawn(generation=10))
    before = await people.reaches(ALICE, Phase.READY, within=20)
    running = service.workspaces()
    await service.end(signal.SIGKILL)
    assert service.workspaces() == running
    await service.start()
    await people.send(spawn("bob", generation=11))
    await people.reaches(workspace("bob").name, Phase.READY, within=20)
    assert await people.record(ALICE) == before
    assert running.items() <= service.workspaces().items()
    (pid,) = running
    os.kill(pid, signal.SIGKILL)
    await people.reaches(ALICE, Phase.FAILED, within=10)
    assert await service.end(signal.SIGTERM) == 0
    assert set(service.workspaces().values()) == {workspace("bob").name}, "they outlive their worker"


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_again_and_again_at_any_moment_it_starts_nothing_twice_and_loses_nothing(
    service: Service, people: People, nats_server: NatsServer, seed: int
) -> None:
    chance = random.Random(seed)
    users = [f"user{number}" for number in range(6)]
    generation = 10
    wanted: dict[str, type[Command]] = {}
    for _ in range(6):
        await service.start()
        await service.is_up()
        for user in users:
            generation += 1
            command = chance.choice((spawn, spawn, stop, delete))(user, generation=generation)
            wanted[workspace(user).name] = type(command)
            await people.send(command)
            await asyncio.sleep(chance.uniform(0, 0.05))
        await asyncio.sleep(chance.uniform(0, 0.3))
        await service.end(signal.SIGKILL)
        if chance.random() < 0.3:
            await nats_server.kill()
            await nats_server.start()
    await service.start()
    running = sorted(name for name, kind in wanted.items() if kind is SpawnWorkspace)
    for name, kind in wanted.items():
        if kind is SpawnWorkspace:
            await people.reaches(name, Phase.READY, within=30)
        elif kind is DeleteWorkspace:
            await people.vanishes(name, within=30)
        else:
            await until_async(partial(has_stopped, people, name), within=30)
    await until(lambda: sorted(service.workspaces().values()) == running)
    folders = set(os.listdir(service.folder / "workspaces"))
    assert folders.isdisjoint(name for name, kind in wanted.items() if kind is DeleteWorkspace)
    assert os.listdir(service.folder / "trash") == []


async def has_stopped(people: People, name: str) -> bool:
    record = await people.record(name)
    return record is None or record.phase is Phase.STOPPED


async def test_a_lost_store_is_rebuilt_by_the_next_worker(
    service: Service, people: People, nats_server: NatsServer
) -> None:

    await service.start()
    await people.send(spawn(generation=10))
    before = await people.reaches(ALICE, Phase.READY, within=20)
    await service.end(signal.SIGTERM)
    await nats_server.stop()
    shutil.rmtree(nats_server.folder / "store")
    await nats_server.start()
    await service.start()
    assert await people.reaches(ALICE, lambda r: r is not None, within=20) == before
    await until(lambda: "reconcile.store_lost" in service.log())
    assert list(service.workspaces().values()) == [ALICE]


async def test_no_secret_reaches_the_log_or_the_records(service: Service, people: People, bus: Bus) -> None:
    await service.start(MLHUB_LOG_LEVEL="debug")
    await people.send(spawn(generation=10))
    await people.reaches(ALICE, Phase.READY, within=20)
    await people.send(stop(generation=20))
    await people.reaches(ALICE, Phase.STOPPED)
    kept = await bus.connection.last(f"KV_{bus.subjects.workspaces}", f"$KV.{bus.subjects.workspaces}.{ALICE}")
    assert kept is not None
    events = "".join(event.model_dump_json() for event in await people.history(ALICE))
    state = (service.folder / "workspaces" / ALICE / "state.json").read_text()
    for text in (service.log(), kept.data.decode(), events, state):
        assert "canary-token" not in text
        assert PASSWORD not in text


async def test_the_real_jupyterlab_comes_up_and_goes(service: Service, people: People, bus: Bus) -> None:
    async def hub(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"version": "6.1.1"}'
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-JupyterHub-Version: 6.1.1\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        await writer.drain()
        writer.close()

    hub_server = await asyncio.start_server(hub, "127.0.0.1", 0)
    api = f"http://127.0.0.1:{hub_server.sockets[0].getsockname()[1]}/hub/api"
    secrets = {
        "JUPYTERHUB_API_TOKEN": "a-token",
        "JUPYTERHUB_API_URL": api,
        "JUPYTERHUB_ACTIVITY_URL": f"{api}/users/alice/activity",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-alice",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/alice/oauth_callback",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/alice/",
        "JUPYTERHUB_USER": "alice",
    }
    await service.start(MLHUB_SPAWNER_WORKER_COMMAND="", MLHUB_SPAWNER_WORKER_STOP_GRACE="5")
    await bus.secrets.put(ALICE, WorkspaceSecrets(generation=10, env=secrets))
    await bus.send(spawn(generation=10), pool="default")
    ready = await people.reaches(ALICE, lambda r: r is not None and r.phase in {Phase.READY, Phase.FAILED}, within=60)
    assert ready.phase is Phase.READY, ready.log_tail
    assert ready.endpoint is not None
    url = f"http://{ready.endpoint.host}:{ready.endpoint.port}"
    async with httpx.AsyncClient(trust_env=False, base_url=url) as client:
        version = await client.get("/user/alice/api")
        login = await client.get("/user/alice/lab")
    assert set(version.json()) == {"version"}
    assert login.status_code == 302, "nobody gets in without the hub's word"
    await people.send(stop(generation=20))
    await people.reaches(ALICE, Phase.STOPPED, within=20)
    assert service.workspaces() == {}
    hub_server.close()
    assert EventKind.WORKSPACE_READY in [event.kind for event in await people.history(ALICE)]
