"""What strangers may ask of the gateway, on a clock of the test's."""

import asyncio
import time
from datetime import timedelta
from ipaddress import IPv4Network

import pytest

from mlhub_ssh_gateway.admission import Admission


def admission(**fields: float) -> Admission:
    values = {"handshakes": 4, "handshakes_per_address": 2, "waiting": 8, "rate": 100.0} | fields
    return Admission(
        handshakes=int(values["handshakes"]),
        handshakes_per_address=int(values["handshakes_per_address"]),
        waiting=int(values["waiting"]),
        rate=values["rate"],
        patience=timedelta(seconds=values.get("patience", 0.2)),
    )


async def come(gate: Admission, address: str) -> float:
    """Seconds that one waits for his turn."""
    began = time.monotonic()
    async with gate.turn(address):
        return time.monotonic() - began


async def test_an_address_that_comes_too_often_waits_for_its_turn() -> None:
    gate = admission(rate=5, patience=5)
    began = time.monotonic()
    waited = [await come(gate, "10.0.0.1") for _ in range(10)]
    assert max(waited[:5]) < 0.1
    assert 0.8 < time.monotonic() - began < 2
    assert await come(gate, "10.0.0.2") < 0.1


@pytest.mark.parametrize(
    ("address", "expected"),
    [("10.113.4.9", "network"), ("::ffff:10.113.4.9", "network"), ("10.114.0.1", None), ("fe80::1%eth0", None)],
)
def test_programs_in_workspaces_are_refused_whatever_family_their_address_comes_in(
    address: str, expected: str | None
) -> None:
    gate = admission()
    gate.refused = [IPv4Network("10.113.0.0/16")]
    assert gate.refusal(address) == expected


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("10.0.0.1", "10.0.0.2", False),
    ],
)
async def test_what_counts_as_one_address(one: str, other: str, together: bool) -> None:
    gate = admission(rate=5, patience=5)
    await asyncio.gather(*(come(gate, one) for _ in range(5)))
    assert (await come(gate, other) > 0.1) is together


async def test_handshakes_of_one_address_wait_for_each_other_and_not_for_ever() -> None:
    gate = admission()
    async with gate.turn("10.0.0.1"), gate.turn("10.0.0.1"):
        async with gate.turn("10.0.0.2"):
            pass
        with pytest.raises(TimeoutError):
            async with gate.turn("10.0.0.1"):
                pytest.fail("a third one got in")
    async with gate.turn("10.0.0.1"):
        pass


async def test_a_turn_may_last_longer_than_the_wait_for_it() -> None:
    gate = admission()
    async with gate.turn("10.0.0.1"):
        await asyncio.sleep(0.3)


async def test_one_address_cannot_fill_the_waiting_room() -> None:
    gate = admission()

    async def wait(address: str) -> None:
        async with gate.turn(address):
            await asyncio.sleep(10)

    waiting = []
    while gate.refusal("10.0.0.1") is None:
        waiting.append(asyncio.ensure_future(wait("10.0.0.1")))
        await asyncio.sleep(0)
    assert len(waiting) == 4
    assert gate.refusal("10.0.0.1") == "address"
    assert gate.refusal("10.0.0.2") is None
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert gate.refusal("10.0.0.1") is None


@pytest.mark.parametrize("network", ["2001:db8:0:{}::1", "10.0.0.{}"])
async def test_silent_ones_of_many_addresses_lock_nobody_out(network: str) -> None:
    gate = admission(patience=20)

    async def silent(number: int) -> None:
        async with gate.turn(network.format(number)):
            await asyncio.sleep(60)

    waiting = [asyncio.ensure_future(silent(number)) for number in range(8)]
    await asyncio.sleep(0.1)
    assert await come(gate, "192.0.2.1") < 18
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_site_that_floods_loses_its_own_turns() -> None:
    gate = admission(patience=20)

    async def silent(number: int) -> None:
        async with gate.turn(f"2001:db8:0:{number}::1"):
            await asyncio.sleep(30)

    async with gate.turn("192.0.2.1"):
        flood = [asyncio.ensure_future(silent(number)) for number in range(3)]
        await asyncio.sleep(0.1)
        assert await come(gate, "192.0.2.2") < 10
        ended = [task for task in flood if task.done()]
        assert [type(task.exception()) for task in ended] == [TimeoutError]
        assert ended == flood[:1]
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_one_site_cannot_fill_the_waiting_room() -> None:
    gate = admission()

    async def wait(address: str) -> None:
        async with gate.turn(address):
            await asyncio.sleep(10)

    waiting: list[asyncio.Future[None]] = []
    while len(waiting) < 20 and gate.refusal(f"2001:db8:0:{len(waiting)}::1") is None:
        waiting.append(asyncio.ensure_future(wait(f"2001:db8:0:{len(waiting)}::1")))
        await asyncio.sleep(0)
    assert len(waiting) == 4
    assert gate.refusal("2001:db8:1::1") is None
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
