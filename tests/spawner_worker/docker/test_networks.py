"""The users' networks on a real engine: made once, with everybody on them who belongs there, and gone in the end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiodocker.containers import DockerContainer

from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.docker import labels
from mlhub_spawner_worker.backends.docker.errand import DEFAULT_IMAGE
from mlhub_spawner_worker.backends.docker.errors import translated
from mlhub_spawner_worker.backends.docker.networks import UserNetworks, network_name
from mlhub_spawner_worker.backends.docker.place import NetworkPlace
from mlhub_spawner_worker.backends.docker.subnets import from_the_end
from mlhub_spawner_worker.firewall import bridge_name
from tests.spawner_worker.docker.conftest import Stand
from tests.support.docker_engine import ENGINE_URL, IMAGE
from tests.support.docker_networks import WAITER, Deployment, address_of, deployed, dial, inside, networks_of
from tests.support.makers import NEWEST
from tests.support.waiting import until, until_async

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def deployment() -> AsyncIterator[Deployment]:
    async with deployed(reach="services") as deployment:
        yield deployment


@contextlib.asynccontextmanager
async def following(deployment: Deployment, **changes: Any) -> AsyncIterator[UserNetworks]:
    """Networks at work that follow the engine's events."""
    async with deployment.opened(**changes) as networks:
        deployment.engine.events.start()
        await asyncio.wait_for(deployment.engine.events.connected.wait(), 10)
        yield networks


@pytest.fixture
async def networks(deployment: Deployment) -> AsyncIterator[UserNetworks]:
    async with following(deployment) as networks:
        yield networks


async def gone(deployment: Deployment, user: str) -> None:
    """Wait until that user has no network any more."""

    async def is_gone() -> bool:
        return network_name(deployment.hub, user) not in {one["Name"] for one in await deployment.own_networks()}

    await until_async(is_gone)


async def test_twelve_users_get_a_network_each(deployment: Deployment, networks: UserNetworks) -> None:
    users = [f"user{number}" for number in range(11)] + ["Zoë O'Brien"]
    places = await asyncio.gather(*(networks.attach(user) for user in [*users, *users]))
    shown = {one["Labels"]["mlhub.user"]: one for one in await deployment.own_networks()}
    assert sorted(shown) == sorted(users)
    assert {place.network for place in places} == {one["Name"] for one in shown.values()}
    subnets = [IPv4Network(one["IPAM"]["Config"][0]["Subnet"]) for one in shown.values()]
    assert all(one.prefixlen == 26 and one.subnet_of(deployment.settings.network_pool) for one in subnets)
    assert len(set(subnets)) == 12
    assert shown["Zoë O'Brien"]["Options"]["com.docker.network.bridge.name"] == bridge_name(
        deployment.hub, "Zoë O'Brien"
    )


async def test_two_workers_at_once_make_one_network(deployment: Deployment) -> None:
    async with deployment.opened() as one, deployment.opened() as two:
        places = await asyncio.gather(*(networks.attach("alice") for networks in (one, two, one, two)))
        made = await deployment.own_networks()
        assert [network["Name"] for network in made] == [network_name(deployment.hub, "alice")]
        assert {place.network for place in places} == {made[0]["Name"]}
        # The next one for each is another one, not a mere guess at what is free.
        await asyncio.gather(one.attach("bob"), two.attach("carol"), one.attach("dave"), two.attach("erin"))
        assert len(await deployment.own_networks()) == 5


async def test_what_others_have_in_the_pool_is_left_alone(deployment: Deployment) -> None:
    pool = list(deployment.settings.network_pool.subnets(new_prefix=26))
    await _foreign_network(deployment, "before", str(next(pool[0].subnets(new_prefix=28))))
    async with deployment.opened() as networks:
        # Made after the look around: only the engine knows.
        await _foreign_network(deployment, "after", str(pool[1].supernet(new_prefix=25).network_address + 64) + "/26")
        await networks.attach("alice")
        assert [one["IPAM"]["Config"][0]["Subnet"] for one in await deployment.own_networks()] == [str(pool[2])]


async def test_a_used_up_pool_is_an_error_until_a_network_is_free_again(deployment: Deployment) -> None:
    pool = next(deployment.settings.network_pool.subnets(new_prefix=28))
    async with deployment.opened(network_pool=pool, network_size=29) as networks:
        await asyncio.gather(networks.attach("alice"), networks.attach("bob"))
        with pytest.raises(BackendError, match=f"All 2 networks of the pool {pool} are in use"):
            await networks.attach("carol")
        await networks.released("alice")
        await gone(deployment, "alice")
        await networks.attach("carol")


@pytest.mark.parametrize(("reach", "most"), [("host", 5), ("services", 3)])
async def test_a_full_network_is_an_error_for_its_user_alone(deployment: Deployment, reach: str, most: int) -> None:
    async with following(deployment, network_size=29, reach=reach) as networks:
        for _ in range(most):
            await deployment.workspace("alice", await networks.attach("alice"))
        full = f"The network of alice is full: no more than {most} workspaces"
        with pytest.raises(BackendError, match=full):
            await networks.attach("alice")
        await networks.attach("bob")
        if reach == "services":
            # Whoever was away when it became full finds the room that was kept.
            network = network_name(deployment.hub, "alice")
            services = [await deployment.service(name) for name in ("proxy", "ssh-gateway")]
            for service in services:
                await until_async(partial(_is_on, service, network))
            with pytest.raises(BackendError, match=full):
                await networks.attach("alice")


async def test_who_comes_too_late_for_the_last_address_is_told_so(deployment: Deployment) -> None:
    async with deployment.opened(network_size=29) as networks:
        place = await networks.attach("alice")
        for _ in range(5):
            await deployment.workspace("alice", place)
        with pytest.raises(BackendError, match="The network of this user is full"), translated("start it"):
            await deployment.workspace("alice", place)


async def test_a_network_that_somebody_pruned_is_made_again(deployment: Deployment, networks: UserNetworks) -> None:
    place = await networks.attach("alice")
    await (await deployment.docker.networks.get(place.network)).delete()
    again = await networks.attach("alice")
    await deployment.workspace("alice", again)
    assert len(await deployment.own_networks()) == 1


async def test_proxy_and_gateway_join_and_nobody_else(deployment: Deployment, networks: UserNetworks) -> None:
    proxy, gateway, hub = await asyncio.gather(*(deployment.service(name) for name in ("proxy", "ssh-gateway", "hub")))
    place = await networks.attach("alice")
    workspace = await deployment.workspace("alice", place)
    assert await networks_of(proxy) == await networks_of(gateway) == {"bridge", place.network}
    assert await networks_of(hub) == {"bridge"}
    at = await address_of(proxy, place.network)
    assert (await inside(workspace, "getent hosts mlhub"))[1].split()[0] == at
    assert place.extra_hosts == ()
    # Its published ports and its way out stay where they were.
    _, routes = await inside(proxy, "cat /proc/net/route")
    default = next(line.split() for line in routes.splitlines() if line.split()[1] == "00000000")
    assert default[0] == "eth0"


async def test_a_proxy_made_anew_joins_every_network(deployment: Deployment, networks: UserNetworks) -> None:
    old = await deployment.service("proxy")
    places = [await networks.attach(user) for user in ("alice", "bob", "carol")]
    before = [await address_of(old, place.network) for place in places]
    await old.delete(force=True)
    # Whoever comes first must not take the address that the proxy had.
    gateway = await deployment.service("ssh-gateway")
    await until_async(lambda: _is_on(gateway, places[0].network))
    new = await deployment.service("proxy")

    async def has_all() -> bool:
        return {place.network for place in places} <= await networks_of(new)

    await until_async(has_all)
    # What workspaces remember of the name `mlhub` stays true.
    assert [await address_of(new, place.network) for place in places] == before
    # And one that comes later as well, although another container was known for the proxy.
    assert (await networks.attach("dave")).network in await networks_of(new)


async def test_a_proxy_whose_address_is_taken_gets_another(deployment: Deployment, networks: UserNetworks) -> None:
    place = await networks.attach("alice")
    (made,) = await deployment.own_networks()
    taken = str(from_the_end(IPv4Network(made["IPAM"]["Config"][0]["Subnet"]), 0))
    ends = {"EndpointsConfig": {place.network: {"IPAMConfig": {"IPv4Address": taken}}}}
    await deployment.plain(WAITER, {"NetworkMode": place.network}, NetworkingConfig=ends)
    proxy = await deployment.service("proxy")
    await until_async(lambda: _is_on(proxy, place.network))
    workspace = await deployment.workspace("alice", await networks.attach("alice"))
    at = await address_of(proxy, place.network)
    assert at != taken
    assert (await inside(workspace, "getent hosts mlhub"))[1].split()[0] == at


async def test_a_proxy_that_finds_no_room_joins_as_soon_as_there_is_some(deployment: Deployment) -> None:
    with structlog.testing.capture_logs() as logs:
        async with following(deployment, network_size=29) as networks:
            place, other = await networks.attach("alice"), await networks.attach("bob")
            full = [await deployment.workspace("alice", place) for _ in range(5)]
            proxy = await deployment.service("proxy")
            await until(lambda: any(line["event"] == "docker.not_joined" for line in logs))
            assert await _is_on(proxy, other.network)
            assert not await _is_on(proxy, place.network)
            await full[0].delete(force=True)
            await until_async(lambda: _is_on(proxy, place.network))


async def test_a_network_goes_with_its_last_workspace_and_a_stopped_proxy_still_starts(
    deployment: Deployment, networks: UserNetworks
) -> None:
    proxy = await deployment.service("proxy")
    places = {user: await networks.attach(user) for user in ("alice", "bob")}
    workspace = await deployment.workspace("alice", places["alice"])
    await proxy.kill(signal="KILL")
    await proxy.wait()
    await workspace.delete(force=True)
    await networks.released("alice")
    await gone(deployment, "alice")
    await proxy.start()
    assert places["alice"].network not in await networks_of(proxy)

    async def is_back() -> bool:
        return bool(await address_of(proxy, places["bob"].network))

    await until_async(is_back)


async def test_a_network_in_use_stays(deployment: Deployment, networks: UserNetworks) -> None:
    place = await networks.attach("alice")
    one, other = [await deployment.workspace("alice", place) for _ in range(2)]
    await one.delete(force=True)
    # Wrongly told: another workspace runs.
    await networks.released("alice")
    await asyncio.sleep(1)
    assert await dial(other, "127.0.0.1")
    assert len(await deployment.own_networks()) == 1
    # Told and taken back within the moment that a network lingers.
    await other.delete(force=True)
    await networks.released("alice")
    await deployment.workspace("alice", await networks.attach("alice"))
    await asyncio.sleep(1)
    assert len(await deployment.own_networks()) == 1


async def test_the_first_ml_hubs_containers_hold_no_network(stand: Stand) -> None:
    old: dict[str, Any] = {"Image": IMAGE, "Labels": labels.of_workspace(stand.job().record.workspace)}
    await stand.docker.containers.create(old, name=f"{stand.job().name}.before")
    async with stand.backend(own_networks=True) as backend:
        await stand.run(backend, stand.job())
        await backend.stop(stand.job().name, grace=timedelta(0), up_to=NEWEST)

        async def is_gone() -> bool:
            return not await stand.names("networks")

        await until_async(is_gone)


async def test_networks_come_and_go_at_once(deployment: Deployment, networks: UserNetworks) -> None:
    await deployment.service("proxy")

    async def come_and_go() -> None:
        for _ in range(3):
            container = await deployment.workspace("alice", await networks.attach("alice"))
            await container.delete(force=True)
            await networks.released("alice")
            await asyncio.sleep(0.2)

    await come_and_go()
    await gone(deployment, "alice")


async def test_a_new_worker_keeps_what_is_used_and_sweeps_the_rest(deployment: Deployment) -> None:
    proxy = await deployment.service("proxy")
    async with deployment.opened() as first:
        places = {user: await first.attach(user) for user in ("alice", "bob")}
        await deployment.workspace("alice", places["alice"])
    assert len(await deployment.own_networks()) == 2
    async with deployment.opened() as second:
        await gone(deployment, "bob")
        assert await networks_of(proxy) == {"bridge", places["alice"].network}
        assert (await second.attach("alice")).network == places["alice"].network


async def test_the_worker_itself_joins_where_it_runs_all_services(deployment: Deployment) -> None:
    if not await deployment.has_image(DEFAULT_IMAGE):
        pytest.skip(f"the image {DEFAULT_IMAGE} is not built (make images)")
    socket, code = ENGINE_URL.removeprefix("unix://"), [ROOT / "services/spawner-worker/src", ROOT / "shared/src"]
    standalone = await deployment.plain(
        ["python", "-c", _WORKER, ENGINE_URL, deployment.hub, str(deployment.settings.network_pool)],
        {"Binds": [f"{socket}:{socket}", *(f"{folder}:{folder}:ro" for folder in code)]},
        Image=DEFAULT_IMAGE,
        Hostname="not-its-id",
        Env=[f"PYTHONPATH={':'.join(map(str, code))}"],
    )

    async def is_attached() -> bool:
        said = "".join(await standalone.log(stdout=True, stderr=True))
        assert "Traceback" not in said, said
        return "attached" in said

    await until_async(is_attached)
    network = network_name(deployment.hub, "alice")
    assert await networks_of(standalone) == {"bridge", network}
    workspace = await deployment.workspace("alice", NetworkPlace(network))
    # It is on all of them, and no way from one to another.
    assert (await inside(standalone, "cat /proc/sys/net/ipv4/ip_forward"))[1].strip() == "0"
    at = await address_of(standalone, network)
    assert (await inside(workspace, "getent hosts mlhub"))[1].split()[0] == at


async def test_only_a_container_can_join_itself(deployment: Deployment) -> None:
    with pytest.raises(BackendError, match="needs a worker in a container"):
        await deployment.networks(reach="self").open()


async def test_the_host_is_the_proxy(deployment: Deployment) -> None:
    async with deployment.opened(reach="host") as networks:
        place = await networks.attach("alice")
        workspace = await deployment.workspace("alice", place)
        assert place.extra_hosts == (f"mlhub:{place.gateway}",)
        assert (await inside(workspace, "getent hosts mlhub"))[1].split()[0] == place.gateway


async def test_the_proxy_is_elsewhere(deployment: Deployment) -> None:
    with pytest.raises(BackendError, match="needs the address to publish on"):
        await deployment.networks(reach="published").open()
    elsewhere = {"publish_address": "127.0.0.1", "proxy_address": "192.0.2.9", "publish_to": ("192.0.2.9",)}
    async with deployment.opened(reach="published", **elsewhere) as networks:
        place = await networks.attach("alice")
        assert place.extra_hosts == ("mlhub:192.0.2.9",)
        assert place.publish_on == "127.0.0.1"


async def _foreign_network(deployment: Deployment, name: str, subnet: str) -> None:
    await deployment.docker.networks.create(
        {
            "Name": f"{deployment.hub}-{name}",
            "Labels": {"mlhub.test": deployment.hub},
            "IPAM": {"Config": [{"Subnet": subnet}]},
        }
    )


_WORKER = """
import asyncio, ipaddress, sys
from mlhub_spawner_worker.backends.docker.configuration import ReachSettings
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.networks import UserNetworks

async def main(url, hub, pool):
    engine = Engine(url, hub)
    await engine.open()
    settings = ReachSettings(reach="self", network_pool=ipaddress.IPv4Network(pool), firewall=False)
    networks = UserNetworks(engine, hub, settings, engine_url=url)
    await networks.open()
    print("attached", await networks.attach("alice"), flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


async def _is_on(container: DockerContainer, network: str) -> bool:
    """With an address: an engine keeps the name of a network that it could not join a container to."""
    joined = (await container.show())["NetworkSettings"]["Networks"].get(network)
    return joined is not None and joined["IPAddress"] != ""
