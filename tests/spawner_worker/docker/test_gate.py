"""Who is let through to the engine, and when."""

import asyncio
from datetime import timedelta

import pytest

from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.docker import gate
from mlhub_spawner_worker.backends.docker.gate import Gate


async def test_no_more_than_there_is_room_for_and_first_come_first_served() -> None:
    line, order, inside, most = Gate(2), list[str](), 0, 0

    async def pass_through(name: str) -> None:
        nonlocal inside, most
        async with line.turn():
            inside += 1
            most = max(most, inside)
            order.append(name)
            await asyncio.sleep(0.01)
            inside -= 1

    async with asyncio.TaskGroup() as group:
        for name in "abcdef":
            group.create_task(pass_through(name))
    assert order == list("abcdef")
    assert most == 2


async def test_who_goes_away_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Gate(1)
    async with line.turn():
        waiting = asyncio.ensure_future(line.turn().__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        monkeypatch.setattr(gate, "_PATIENCE", timedelta(milliseconds=20))
        with pytest.raises(Temporary, match="many workspaces"):
            async with line.turn():
                pytest.fail("there is no room")
    async with asyncio.timeout(1), line.turn():
        pass
