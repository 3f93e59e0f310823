"""The overlay for many nodes, replaced pod by pod while people are at work: nobody notices more than he must."""

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path

import pytest
import pytest_asyncio

from mlhub_spawner_worker.siblings import owner
from tests.support.cluster_people import Automaton, Outages, Talk, Visitor, ssh_session, websocket
from tests.support.cluster_stack import ADMIN, HUB, ClusterStack, missing
from tests.support.openssh import OpenSsh
from tests.support.waiting import until, until_async

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400), pytest.mark.chaos]

TALKER = "example.org/talker"
PROGRAM = Path(__file__).parents[1] / "support" / "talking_server.py"
NODE = "kubernetes"

ENDS = {"ssh-gateway": {"ssh-gateway"}, "spawner-worker": {"ssh-gateway"}, "proxy": {"proxy"}}
"""Whose connections end while a service is replaced: a session by SSH leads through a gateway and a worker."""


class Crowd:
    """Everybody who is at work."""

    def __init__(self, stack: ClusterStack, ssh: OpenSsh) -> None:
        self.stack, self.ssh = stack, ssh
        self.outages = Outages()
        self.visitor = Visitor(stack, ADMIN)
        self.automata = [Automaton(stack, user, self.outages) for user in ("ann", "ben")]
        self.over = threading.Event()
        everybody: list[Visitor | Automaton] = [self.visitor, *self.automata]
        self._tasks = [asyncio.create_task(asyncio.to_thread(one.run, self.over)) for one in everybody]

    async def aclose(self) -> None:
        """All end what they have begun."""
        self.over.set()
        await asyncio.wait_for(asyncio.gather(*self._tasks), 60)

    async def goes_on(self) -> None:
        """Wait until each has begun and ended something anew."""
        done = [one.done for one in self.automata]
        await until(lambda: all(one.done > was + 1 for one, was in zip(self.automata, done, strict=True)))

    @property
    def failures(self) -> list[str]:
        return [*self.visitor.failures, *(failure for one in self.automata for failure in one.failures)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterStack]:
    """One that is up, with a workspace that talks."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("production")
    async with ClusterStack.open(folder, "production", MLHUB_IMAGES="example.org/*") as stack:
        stack.cluster.kubelet.images[TALKER] = [sys.executable, str(PROGRAM)]
        for user in ("ann", "ben"):
            await stack.ask(stack.hub.add_user, user)
        await stack.spawn(ADMIN, image=TALKER)
        yield stack


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def ssh(stack: ClusterStack, tmp_path_factory: pytest.TempPathFactory) -> OpenSsh:
    """With a key that everybody knows already."""
    ssh = OpenSsh(tmp_path_factory.mktemp("ssh"), stack.port)
    session = await stack.session()
    page = await stack.ask(session.post, "/hub/ssh-keys", action="add", label="laptop", public_key=ssh.public_line)
    assert page.status_code == 200

    async def enters() -> bool:
        return (await ssh.run(ADMIN, "true")).status == 0

    await until_async(enters)
    return ssh


@pytest_asyncio.fixture(loop_scope="module")
async def crowd(stack: ClusterStack, ssh: OpenSsh) -> AsyncIterator[Crowd]:
    """At work, and each of them has seen something work already."""
    stack.started.clear()
    crowd = Crowd(stack, ssh)
    try:
        await until(lambda: crowd.visitor.asked > 3 and all(one.done for one in crowd.automata))
        yield crowd
    finally:
        await crowd.aclose()  # whatever happens: the run would wait for its threads for ever


async def talks(crowd: Crowd, life: AsyncExitStack) -> list[Talk]:
    """A WebSocket by each proxy and a session by each gateway."""
    stack = crowd.stack
    sockets = [websocket(stack, proxy, ADMIN) for proxy in stack.pods["proxy"]]
    sessions = [ssh_session(crowd.ssh, gateway, ADMIN) for gateway in stack.pods["ssh-gateway"]]
    return [await life.enter_async_context(one) for one in (*sockets, *sessions)]


async def ends_well(crowd: Crowd) -> None:
    """Nothing failed, nothing is lost, started twice, or left behind."""
    stack = crowd.stack
    await crowd.aclose()
    assert crowd.failures == []
    assert len(crowd.visitor.answers) == 1, "the same program, all the time"
    names = Counter(name for name, _ in stack.started)
    assert set(names.values()) == {1}, "none was started twice"
    assert len(names) >= sum(one.done for one in crowd.automata)
    own = f"ws-{ADMIN}-{HUB}"
    await until(lambda: {one.partition("/")[2] for one in stack.left()} == {own})
    assert len(stack.cluster.objects("pods")) == len(stack.cluster.kubelet.lives) == 1

    async def only_one() -> bool:
        return set(await stack.ask(stack.bus.records)) == {own}

    await until_async(only_one)


async def test_every_service_is_replaced_while_people_work(crowd: Crowd) -> None:
    stack = crowd.stack
    for service in ("nats", "spawner-worker", "cleanup", "ssh-gateway", "proxy", "hub"):
        async with AsyncExitStack() as life:
            open_talks = await talks(crowd, life)
            before = {pod.name for pod in stack.pods[service]}
            with crowd.outages.going_on() if service == "hub" else nullcontext():
                await stack.roll(service)
            assert len(stack.pods[service]) == stack.replicas(service)
            if service != "nats":
                assert not before & {pod.name for pod in stack.pods[service]}
            await crowd.goes_on()
            ended = {talk.by.service for talk in open_talks if not talk.is_open}
            assert ended == ENDS.get(service, set()), f"while {service} was replaced"
            assert crowd.failures == [], service
    await ends_well(crowd)


@pytest.mark.parametrize("is_leader", [True, False])
async def test_a_worker_that_dies_is_replaced_by_the_other(crowd: Crowd, is_leader: bool) -> None:
    stack = crowd.stack
    first, second = stack.pods["spawner-worker"]
    leader = first if owner(NODE, [first.name, second.name]) == first.name else second
    victim = leader if is_leader else next(pod for pod in (first, second) if pod is not leader)
    names = [pod.name for pod in (first, second)]
    server = next(f"own{n}" for n in range(99) if owner(f"ws-ann-{HUB}-own{n}", names) == victim.name)
    async with AsyncExitStack() as life:
        open_talks = [one for one in await talks(crowd, life) if one.by.service == "proxy"]
        answer = await stack.ask(stack.hub.spawn, "ann", server, env={"FAKE_DELAY": "2"})
        assert answer.status_code == 202
        await until(lambda: any(name.endswith(server) for name, _ in stack.started))
        await stack.lose(victim)
        killed = time.monotonic()

        async def is_ready() -> bool:
            return bool(await stack.ask(stack.hub.is_ready, "ann", server))

        await until_async(is_ready)
        assert time.monotonic() - killed < 25
        assert all(talk.is_open for talk in open_talks)
    await (await stack.start("spawner-worker")).ready()
    await stack.ask(stack.hub.delete, "ann", server)
    await ends_well(crowd)
