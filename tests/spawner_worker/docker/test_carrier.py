"""The one program that carries a container's connections: people may put another one in its place."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.exec import ContainerEntry
from mlhub_spawner_worker.entry import Loopback, carrier
from tests.support.attach_places import BARE_IMAGE, ENGINE_URL, engine_problem, running_container
from tests.support.openssh import execute
from tests.support.waiting import until_async

OPENED = r"\0\0\0\1\1\0\0\0\0"
DATA = r"\0\0\0\1\3\0\0\200\0"
"""32 KiB of the first connection."""
HUGE = r"\0\0\0\1\3\177\377\377\377"


class Silent:
    """A caller that says nothing."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        self.size += len(data)

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@pytest.fixture
def container() -> Iterator[str]:
    if (problem := engine_problem(BARE_IMAGE)) is not None:
        pytest.skip(problem)
    with running_container(BARE_IMAGE) as name:
        yield name


@asynccontextmanager
async def loopback(container: str, program: str) -> AsyncIterator[Loopback]:
    """A container's, whose `python3` is this script of a shell."""
    script = f"#!/bin/sh\nprintf '\\036%s\\n' $$\n{program}\n"
    line = "mkdir -p /opt/own/bin && cat >/opt/own/bin/python3 && chmod +x /opt/own/bin/python3"
    made = await execute("docker", "exec", "-i", container, "sh", "-c", line, stdin=script.encode())
    assert made.status == 0, made.stderr
    engine = Engine(ENGINE_URL, "test")
    await engine.open()
    try:
        yield ContainerEntry(engine, container, home=None).loopback
    finally:
        await engine.aclose()


@pytest.mark.parametrize(
    "flood",
    [f"while :; do printf '{DATA}'; head -c 32768 /dev/zero; done", f"printf '{HUGE}'; cat /dev/zero"],
    ids=["too-much", "too-long"],
)
async def test_one_that_says_more_than_it_may_is_ended(container: str, flood: str) -> None:
    async with loopback(container, f"printf '{OPENED}'; {flood}") as ports:
        link = await ports.connect(4000, caller := Silent())
        # It is not read from, so that nothing more is granted.
        await until_async(lambda: says(container, "0\n"))
        assert caller.size == 0
        link.resume_reading()
        await asyncio.wait_for(link.wait(), 20)
        assert caller.size <= 2 * carrier.WINDOW


async def test_one_that_ends_ends_its_connections_and_another_takes_its_place(container: str) -> None:
    async with loopback(container, f"printf '{OPENED}'; sleep 0.3") as ports:
        for _ in range(2):
            link = await ports.connect(4000, Silent())
            link.resume_reading()
            await asyncio.wait_for(link.wait(), 20)


async def says(container: str, expected: str) -> bool:
    line = "grep --files-with-matches '[/]opt/own/bin/python3' /proc/[0-9]*/cmdline | wc -l"
    return (await execute("docker", "exec", container, "sh", "-c", line)).stdout.decode() == expected
