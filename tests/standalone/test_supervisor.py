import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from mlhub_standalone.component import Component
from mlhub_standalone.log_files import LogFile
from mlhub_standalone.supervisor import FIRST_DELAY, State, Supervised, describe_end
from tests.support.waiting import until

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


class Parts:
    """Makes supervised parts of little programs, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.made: list[Supervised] = []
        self.states: list[State] = []

    def run(self, code: str) -> Supervised:
        component = Component("part", [sys.executable, "-c", code], dict(os.environ), "nowhere", ())
        log = LogFile(self._folder / "part.log")
        part = Supervised(component, log, lambda part: self.states.append(part.state))
        self.made.append(part)
        part.start()
        return part


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    parts = Parts(tmp_path)
    yield parts
    await asyncio.gather(*(part.stop(0) for part in parts.made))


async def test_a_killed_process_is_replaced_by_another(parts: Parts) -> None:
    part = parts.run("import time; time.sleep(60)")
    await until(lambda: part.identity is not None)
    first = part.identity
    assert first is not None
    first.send(signal.SIGKILL)
    await until(lambda: part.identity not in {None, first})
    assert part.restarts == 1
    assert part.last_end == "was ended by SIGKILL"
    assert parts.states == [State.RUNNING, State.WAITING, State.RUNNING]


async def test_what_ends_again_and_again_is_started_ever_more_rarely(parts: Parts) -> None:
    loop = asyncio.get_running_loop()
    part = parts.run("import sys; sys.exit(3)")
    times: list[float] = []
    for restarts in (1, 2, 3, 4):
        await until(partial(_restarted, part, restarts))
        times.append(loop.time())
    # Least times: a machine that is busy adds to them. The tenth of a second is that of looking.
    for doubled, (before, after) in enumerate(pairwise(times)):
        assert after - before > FIRST_DELAY * 2**doubled - 0.1
    assert part.last_end == "ended with exit code 3"


def _restarted(part: Supervised, times: int) -> bool:
    return part.restarts >= times


async def test_a_stopped_process_is_not_started_again(parts: Parts) -> None:
    part = parts.run("import time; time.sleep(60)")
    await until(lambda: part.identity is not None)
    process = part.identity
    assert process is not None
    await part.stop(5)
    assert not process.is_alive
    assert parts.states == [State.RUNNING, State.ENDED]


async def test_one_that_does_not_listen_is_killed(parts: Parts) -> None:
    part = parts.run(STUBBORN)
    await until(lambda: part.log.tail(1) == ["deaf"])
    process = part.identity
    assert process is not None
    await part.stop(0.3)
    assert not process.is_alive
    assert part.last_end == "was ended by SIGKILL"


async def test_stopping_does_not_wait_for_the_next_start(parts: Parts) -> None:
    part = parts.run("raise SystemExit(1)")
    await until(lambda: part.restarts >= 3)
    began = asyncio.get_running_loop().time()
    await part.stop(5)
    assert asyncio.get_running_loop().time() - began < 0.5
    assert part.state is State.ENDED


async def test_a_program_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    part = Supervised(Component("x", ["/no/such/program"], {}, "", ()), LogFile(tmp_path / "x.log"), lambda _: None)
    part.start()
    await until(lambda: part.restarts >= 1)
    await part.stop(1)
    assert "/no/such/program" in part.last_end


async def test_ctrl_c_at_the_terminal_does_not_reach_it(parts: Parts) -> None:
    part = parts.run("import time; time.sleep(60)")
    await until(lambda: part.identity is not None)
    assert part.identity is not None
    assert os.getsid(part.identity.pid) == part.identity.pid != os.getsid(0)


@pytest.mark.parametrize(
    ("code", "text"), [(0, "ended with exit code 0"), (-9, "was ended by SIGKILL"), (-64, "was ended by SIGRTMAX")]
)
def test_an_end_is_told_in_words(code: int, text: str) -> None:
    assert describe_end(code) == text
