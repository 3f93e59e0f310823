"""Tasks end when they are told to, whatever they wait for."""

import asyncio
from typing import Any

import pytest

from mlhub_shared.tasks import end_tasks, stop_if_cancelled


async def test_a_task_whose_cancellation_meets_an_answer_ends() -> None:
    answers: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()

    async def ask_for_ever() -> None:
        while True:
            answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            answers.put_nowait(answer)
            await asyncio.wait_for(answer, 60)

    task = asyncio.ensure_future(ask_for_ever())
    (await answers.get()).set_result("in the turn of the cancellation")
    async with asyncio.timeout(20):
        await end_tasks(task)
    assert task.cancelled()


async def test_a_task_may_clean_up() -> None:
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned = True

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    await end_tasks(task)
    assert cleaned


async def test_a_task_that_has_failed_is_no_failure_of_who_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> Any:
        raise OSError("gone")

    task = asyncio.ensure_future(fail())
    await asyncio.sleep(0)
    await end_tasks(task)
    del task
    assert "never retrieved" not in caplog.text


async def test_a_loop_that_looks_ends_at_once() -> None:
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asked = asyncio.Event()

    async def ask() -> None:
        while True:
            stop_if_cancelled()
            asked.set()
            await asyncio.wait_for(answer, 60)

    task = asyncio.ensure_future(ask())
    await asked.wait()
    answer.set_result(None)
    task.cancel()
    async with asyncio.timeout(0.5):
        await asyncio.wait([task])
    assert task.cancelled()
