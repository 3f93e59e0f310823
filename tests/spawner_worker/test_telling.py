"""Events of a workspace: each once, in order, also when the bus is away."""

import asyncio
from datetime import timedelta

import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.events import Event
from mlhub_shared.contracts.workspace import Phase
from mlhub_shared.errors import BusUnavailable
from mlhub_spawner_worker.telling import Teller, deletion_event, phase_event, progress_event
from tests.support.makers import record
from tests.support.nats_server import NatsServer
from tests.support.waiting import until_async
from tests.support.workers import People

NAME = record().name


async def test_what_the_bus_does_not_take_is_told_later_in_order(
    nats_server: NatsServer, bus: Bus, people: People
) -> None:
    teller = Teller(bus, patience=timedelta(seconds=0.1))
    events = [
        phase_event(record(phase=Phase.PREPARING)),
        progress_event(record(), 40, "on its way"),
        phase_event(record(phase=Phase.STARTING)),
    ]
    await nats_server.kill()
    for event in events[:2]:
        await teller.tell(NAME, event)
    with pytest.raises(BusUnavailable):
        await teller.tell_first(NAME, deletion_event(record()))
    await nats_server.start()
    running = asyncio.ensure_future(teller.run())
    await teller.tell(NAME, events[2])

    async def all_told() -> bool:
        return [event.id for event in await people.history(NAME)] == [event.id for event in events]

    await until_async(all_told, within=15)
    running.cancel()


async def test_progress_waits_for_nobody_and_only_its_newest_word_is_kept(
    nats_server: NatsServer, bus: Bus, people: People
) -> None:
    teller = Teller(bus, patience=timedelta(seconds=0.1))
    words = [progress_event(record(), percent, "on its way") for percent in range(10, 60, 10)]
    await nats_server.kill()
    for word in words:
        teller.mention(NAME, word)
    await nats_server.start()
    up = phase_event(record(phase=Phase.READY))
    await teller.tell(NAME, up)
    told = [words[0], words[-1], up]
    await until_async(lambda: _were_told(people, told, teller), within=15)


async def _were_told(people: People, events: list[Event], teller: Teller) -> bool:
    await teller.tell(NAME, events[-1])
    return [event.id for event in await people.history(NAME)] == [event.id for event in events]


async def test_a_phase_told_again_is_the_same_event(bus: Bus, people: People) -> None:
    teller = Teller(bus)
    ready = record(phase=Phase.READY)
    assert not await teller.was_told(phase_event(ready), NAME)
    await teller.tell(NAME, phase_event(ready))
    assert await teller.was_told(phase_event(ready), NAME)
    await teller.tell(NAME, phase_event(ready))
    assert len(await people.history(NAME)) == 1
    assert not await teller.was_told(phase_event(ready.model_copy(update={"generation": 2})), NAME)
