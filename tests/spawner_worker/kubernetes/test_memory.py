"""What a worker keeps in mind of workspaces that are no more."""

import asyncio
import gc
import weakref
from datetime import timedelta

from tests.spawner_worker.kubernetes.conftest import Stand
from tests.support.makers import NEWEST
from tests.support.waiting import until

USERS = ("ann", "ben", "cat", "dan", "eve")
NO_GRACE = timedelta(0)


def locks() -> int:
    """How many there are in this process."""
    gc.collect()
    return sum(isinstance(one, asyncio.Lock) for one in gc.get_objects())


async def test_names_that_were_used_once_leave_nothing(stand: Stand) -> None:
    async with stand.backend() as backend:
        before = locks()
        for job in map(stand.job, USERS):
            await stand.run(backend, job)
            await backend.stop(job.name, grace=NO_GRACE, up_to=NEWEST)
            await backend.erase(job.name, up_to=NEWEST)
        del job
        assert locks() <= before


async def test_a_way_into_what_another_worker_has_ended_is_forgotten(stand: Stand) -> None:
    async with stand.backend() as backend, stand.backend() as other:
        job = stand.job()
        await stand.run(other, job)
        await until(lambda: backend.session(job.name) is not None)
        way = weakref.ref(backend.session(job.name))
        assert way() is backend.session(job.name), "the same for everybody who wants in"
        await other.stop(job.name, grace=NO_GRACE, up_to=NEWEST)
        await until(lambda: backend.session(job.name) is None)
        gc.collect()
        assert way() is None
