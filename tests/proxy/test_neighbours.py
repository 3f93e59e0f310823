"""Names of the hub, of gateways and of who may ask the probe frontend: HAProxy follows them as it runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlhub_proxy.config import make_config
from mlhub_proxy.haproxy import HAProxy
from mlhub_proxy.maps import Maps
from mlhub_proxy.neighbours import Neighbours
from mlhub_proxy.runtime_api import RuntimeApi
from mlhub_proxy.settings import ProxySettings
from mlhub_shared.runtime import hosts
from mlhub_shared.tasks import end_tasks
from tests.proxy.backend import Backend
from tests.proxy.conftest import MakeBackend
from tests.proxy.ssh_gateway import BANNER, SshGateway
from tests.proxy.stack import PROGRAMS, Agent, ask
from tests.support.ports import free_port
from tests.support.scripted_names import ScriptedNames
from tests.support.waiting import until_async


@dataclass
class Place:
    """A HAProxy that follows names in the hands of the test."""

    settings: ProxySettings
    names: ScriptedNames
    haproxy: HAProxy

    async def hub(self) -> int:
        return (await ask(self.settings.public_port, "/hub/x")).status

    async def api(self) -> int:
        return (await ask(self.settings.api_port, "/hub/api/x")).status

    async def probe(self, source: str) -> bool:
        """Whether somebody at this address gets an answer of the probe frontend."""
        return await probed(self.settings.probe_port, source)

    async def ssh(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.settings.public_port)
        try:
            writer.write(b"SSH-2.0-client\r\n")
            with suppress(OSError):
                return (await reader.read(len(BANNER))) == BANNER
            return False
        finally:
            writer.close()


@asynccontextmanager
async def running(place: Path, names: ScriptedNames, program: str, **settings: object) -> AsyncIterator[Place]:
    ports = {f"{name}_port": free_port() for name in ("public", "probe", "api")}
    read = ProxySettings(data_dir=place, **{**ports, **settings})  # type: ignore[arg-type]
    api = RuntimeApi(place)
    maps, neighbours = Maps(api, place), Neighbours(read, api, place, names)
    haproxy = HAProxy(Path(program), make_config(read, "2"), api, folder=place, pid_file=place / "pid")

    async def before() -> None:
        await maps.save()
        await neighbours.prepare()

    tasks = [
        asyncio.ensure_future(haproxy.run(before_start=before, after_start=neighbours.resync)),
        asyncio.ensure_future(neighbours.follow()),
    ]
    try:
        await until_async(lambda: _is_up(haproxy))
        yield Place(read, names, haproxy)
    finally:
        await end_tasks(*tasks)
        await haproxy.stop(0)
        api.close()


async def _is_up(haproxy: HAProxy) -> bool:
    return haproxy.problem is None


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "EVERY", 0.05)


async def is_so(condition: Callable[[], Awaitable[object]], wanted: object) -> bool:
    return await condition() == wanted


@pytest.mark.parametrize("program", PROGRAMS)
async def test_the_hub_is_followed_to_another_address(tmp_path: Path, backend: MakeBackend, program: str) -> None:
    hub = await backend("hub")
    names = ScriptedNames()
    async with running(tmp_path, names, program, hub_url=f"http://hub:{hub.port}") as place:
        assert (await place.hub(), await place.api()) == (503, 503), "nobody knows where it is yet"
        names["hub"] = ["127.0.0.9"]
        await names.asked()
        assert await place.hub() == 503, "it is not there"
        names["hub"] = ["127.0.0.1", "::1"]
        await until_async(lambda: is_so(place.hub, 200))
        await until_async(lambda: is_so(place.api, 200))
        del names["hub"]
        await names.asked()
        assert await place.hub() == 200, "the last one counts while nobody can tell"


@pytest.mark.parametrize("program", PROGRAMS)
async def test_the_probe_answers_whoever_has_a_name_now(tmp_path: Path, program: str) -> None:
    names = ScriptedNames(hub=["127.0.0.2"], worker=[])
    places = ProxySettings(internal_networks="127.0.1.0/24,hub,worker").internal_networks
    async with running(tmp_path, names, program, internal_networks=places) as place:
        assert [await place.probe(f"127.0.{last}") for last in ("1.7", "0.2", "0.3")] == [True, True, False]
        names["worker"] = ["127.0.0.3", "127.0.0.4"]
        await until_async(lambda: place.probe("127.0.0.3"))
        assert await place.probe("127.0.0.4")
        names["worker"] = ["127.0.0.4"]
        await until_async(lambda: is_so(lambda: place.probe("127.0.0.3"), wanted=False))
        assert [await place.probe(f"127.0.{last}") for last in ("1.7", "0.2", "0.4")] == [True, True, True]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_ssh_is_spread_over_all_gateways_of_a_name(tmp_path: Path, program: str) -> None:
    port = free_port()
    addresses = ["127.0.0.21", "127.0.0.22", "127.0.0.23"]
    gateways = {address: await SshGateway().start(host=address, port=port) for address in addresses}
    names = ScriptedNames(gateways=addresses[:2])

    def counts() -> list[int]:
        return [len(gateway.clients) for gateway in gateways.values()]

    try:
        async with running(tmp_path, names, program, ssh_gateway=("gateways", port)) as place:
            await until_async(place.ssh)
            first, second, third = counts()
            for _ in range(8):
                assert await place.ssh()
            assert [counts()[0] - first, counts()[1] - second, counts()[2] - third] == [4, 4, 0]
            assert gateways[addresses[0]].clients[-1][0] == "127.0.0.1", "by the PROXY protocol"
            names["gateways"] = addresses[1:]
            await names.asked()
            await until_async(lambda: _grows(place, gateways[addresses[2]]))
            before = counts()
            assert all([await place.ssh() for _ in range(6)])
            assert counts()[0] == before[0], "the first one is gone from the name"
            await gateways[addresses[2]].stop()
            assert all([await place.ssh() for _ in range(6)]), "the one that is dead is passed over"
    finally:
        for gateway in gateways.values():
            await gateway.stop()


async def _grows(place: Place, gateway: SshGateway) -> bool:
    before = len(gateway.clients)
    await place.ssh()
    await place.ssh()
    return len(gateway.clients) > before


async def test_a_new_haproxy_gets_the_addresses_too(tmp_path: Path, backend: MakeBackend) -> None:
    hub = await backend("hub")
    names = ScriptedNames(hub=["127.0.0.1"])
    settings = {"hub_url": f"http://hub:{hub.port}"}
    async with running(tmp_path, names, PROGRAMS[0], **settings) as place:
        await until_async(lambda: is_so(place.hub, 200))
        pid = int((tmp_path / "pid").read_text())
        process = await asyncio.create_subprocess_exec("kill", "-9", str(pid))
        await process.wait()
        await until_async(lambda: _answers(place))


async def _answers(place: Place) -> bool:
    with suppress(OSError):
        return await place.hub() == 200
    return False


async def test_the_whole_proxy_takes_names(stopped_agent: Agent, hub: Backend) -> None:
    gateway = await SshGateway().start()
    try:
        await stopped_agent.start(
            HUB_URL=f"http://localhost:{hub.port}",
            SSH_GATEWAY=f"localhost:{gateway.port}",
            INTERNAL_NETWORKS="localhost,192.0.2.0/24",
        )
        await stopped_agent.ready()

        async def serves() -> bool:
            return (await ask(stopped_agent.public, "/hub/x")).status == 200

        await until_async(serves)
        assert (await ask(stopped_agent.probe, "/user/a/api")).status == 503
        assert not await probed(stopped_agent.probe, "127.0.0.2")
        # An agent that comes back finds HAProxy, and takes nothing from it.
        await stopped_agent.kill()
        assert await serves()
        await stopped_agent.start()
        await stopped_agent.ready()
        assert await serves()
        place = ProxySettings(public_port=stopped_agent.public)
        assert await Place(place, ScriptedNames(), None).ssh()  # type: ignore[arg-type]
    finally:
        await gateway.stop()


async def probed(port: int, source: str) -> bool:
    with suppress(ConnectionError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        try:
            writer.write(b"GET /user/a/api HTTP/1.0\r\n\r\n")
            return (await reader.read()).startswith(b"HTTP/1.")
        finally:
            writer.close()
    return False
