"""The bus as the manifests configure it, by the real nats-server: one, and three that find and trust each other."""

import asyncio
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus, BusSettings
from mlhub_shared.contracts.services import NodeMark
from mlhub_standalone import cluster_secrets
from mlhub_standalone.data_dir import DataDir
from tests.support.manifests.objects import find, rendered, workload
from tests.support.nats_server import nats_server_binary
from tests.support.ports import free_port
from tests.support.waiting import until


def configuration(overlay: str, folder: Path) -> dict[str, str]:
    """The files that the StatefulSet's pod finds in its folder of configuration."""
    objects = rendered(overlay)
    made = cluster_secrets.complete(DataDir(folder), {})["nats"]
    files: dict[str, str] = {}
    for source in workload(objects, "nats").volumes["config"]["projected"]["sources"]:
        if "secret" in source:
            files |= {item["path"]: made[item["key"]] for item in source["secret"]["items"]}
        else:
            files |= find(objects, "ConfigMap", source["configMap"]["name"])["data"]
    return files | {"password": made["MLHUB_NATS_PASSWORD"]}


class Server:
    """One pod's server, with the manifests' ports and hosts replaced by ports of this machine."""

    def __init__(self, folder: Path, number: int, ports: dict[str, list[int]]) -> None:
        self.folder, self.number, self.ports = folder, number, ports
        self.client, self.monitor = ports["4222"][number], ports["8222"][number]

    def write(self, files: dict[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            for port, numbers in self.ports.items():
                text = text.replace(f"port: {port}", f"port: {numbers[self.number]}")
                for other, number in enumerate(numbers):
                    text = text.replace(f"nats-{other}.nats:{port}", f"127.0.0.1:{number}")
            (self.folder / name).write_text(text.replace('"/data', f'"{self.folder / "data"}'))

    def is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@asynccontextmanager
async def running(servers: list[Server]) -> AsyncIterator[list["asyncio.subprocess.Process"]]:
    processes: list[asyncio.subprocess.Process] = []
    try:
        for server in servers:
            with (server.folder / "log").open("wb") as log:
                command = ["--config", str(server.folder / "nats.conf"), "--name", f"nats-{server.number}"]
                start = asyncio.create_subprocess_exec(nats_server_binary(), *command, stderr=log)
                processes.append(await start)
        yield processes
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
                await process.wait()


@pytest.mark.parametrize("overlay", ["single", "production"])
def test_the_server_accepts_its_configuration(overlay: str, tmp_path: Path) -> None:
    files = configuration(overlay, tmp_path / "made")
    (tmp_path / "mlhub").mkdir()
    for name, text in files.items():
        (tmp_path / "mlhub" / name).write_text(text)
    check = [nats_server_binary(), "-t", "-c", str(tmp_path / "mlhub/nats.conf")]
    assert subprocess.run(check, capture_output=True, timeout=30, check=False).returncode == 0
    (tmp_path / "mlhub/auth.conf").unlink()
    assert subprocess.run(check, capture_output=True, timeout=30, check=False).returncode != 0


@pytest.mark.parametrize("password", ["1e5-begins-as-a-number", 'has "quotes" and \\', "true"])
def test_any_password_of_an_operator_is_taken_as_it_is(password: str, tmp_path: Path) -> None:
    found = {"nats": {"MLHUB_NATS_PASSWORD": password.encode(), "MLHUB_NATS_CLUSTER_PASSWORD": password.encode()}}
    made = cluster_secrets.complete(DataDir(tmp_path / "made"), found)
    assert {secret.get("MLHUB_NATS_PASSWORD") for secret in made.values()} == {password}
    config = tmp_path / "nats.conf"
    cluster = f"cluster {{ name: x\n{made['nats']['cluster.conf']} }}"
    config.write_text(f"port: {free_port()}\n{made['nats']['auth.conf']}\n{cluster}")
    run = subprocess.run([nats_server_binary(), "-t", "-c", str(config)], capture_output=True, timeout=30, check=False)
    assert run.returncode == 0, run.stderr


async def test_three_servers_are_one_bus_that_outlives_any_of_them(tmp_path: Path) -> None:
    files = configuration("production", tmp_path / "made")
    ports = {port: [free_port() for _ in range(3)] for port in ("4222", "6222", "8222")}
    servers = [Server(tmp_path / str(number), number, ports) for number in range(3)]
    for server in servers:
        server.write(files)
    urls = ",".join(f"nats://127.0.0.1:{server.client}" for server in servers)
    login = {"user": "mlhub", "password": files["password"]}
    async with running(servers) as processes:
        await until(lambda: all(server.is_healthy() for server in servers))
        bus = await Bus.open(BusSettings(url=urls, hub="test", service="hub", replicas=3, **login))
        try:
            await bus.nodes.put("before", NodeMark(draining=True))
            processes[0].kill()
            await processes[0].wait()
            await bus.nodes.put("after", NodeMark(draining=True), patience=timedelta(seconds=30))
            for key in ("before", "after"):
                assert (entry := await bus.nodes.get(key)) is not None
                assert entry.value.draining
        finally:
            await bus.close()


async def test_a_server_with_another_password_is_no_part_of_it(tmp_path: Path) -> None:
    ports = {port: [free_port() for _ in range(3)] for port in ("4222", "6222", "8222")}
    servers = [Server(tmp_path / str(number), number, ports) for number in range(2)]
    for server in servers:
        server.write(configuration("production", tmp_path / f"made-{server.number}"))
    async with running(servers):
        log = servers[0].folder / "log"
        await until(lambda: b"authentication error" in log.read_bytes())
        assert not any(server.is_healthy() for server in servers)
