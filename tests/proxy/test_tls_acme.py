"""Certificates of an authority, a real one: ordered by one replica, answered for by any, renewed, kept."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.services import AcmeTurn, Certificate, TlsEntry
from tests.proxy.pebble import Pebble, needs_pebble
from tests.proxy.stack import Agent, ask
from tests.proxy.tls import make, names_of, parsed, shown
from tests.support.waiting import until_async

pytestmark = needs_pebble

DOMAINS = {"hub.mlhub.test", "www.mlhub.test"}


@pytest.fixture
async def pebble(tmp_path: Path, other_agent: Agent) -> AsyncIterator[Pebble]:
    """An authority that asks the second replica, whoever has ordered."""
    (tmp_path / "pebble").mkdir()
    pebble = Pebble(tmp_path / "pebble", other_agent.public).prepare()
    yield pebble
    await pebble.stop()


def settings(pebble: Pebble) -> dict[str, str]:
    return {
        "TLS": "on",
        "ACME_DOMAINS": ",".join(DOMAINS),
        "ACME_EMAIL": "admin@mlhub.test",
        "ACME_DIRECTORY": pebble.directory,
        "ACME_CA_FILE": str(pebble.ca_file),
    }


async def issued(agent: Agent, root: ssl.SSLContext) -> bool:
    root.check_hostname = False
    try:
        return (await ask(agent.public, "/", tls=root)).status == 200
    except ssl.SSLCertVerificationError:
        return False


async def orders(agent: Agent, outcome: str) -> int:
    name = f'mlhub_proxy_certificate_orders_total{{outcome="{outcome}"}}'
    rows = (await agent.get("/metrics")).text.splitlines()
    return next((int(float(row.split()[-1])) for row in rows if row.startswith(name)), 0)


async def entry(bus: Bus, key: str) -> TlsEntry | None:
    found = await bus.certs.get(key)
    return found.value if found else None


async def test_one_replica_orders_and_another_answers_for_it(
    stopped_agent: Agent, other_agent: Agent, pebble: Pebble, bus: Bus
) -> None:
    await pebble.start()
    root = await pebble.root()
    # It has no names to order for; all it can do is answer.
    await other_agent.start()
    await other_agent.ready()
    await stopped_agent.start(**settings(pebble))
    await stopped_agent.ready()
    await until_async(lambda: issued(stopped_agent, root))
    der = await shown(stopped_agent.public)
    assert names_of(der) == DOMAINS
    assert not await issued(other_agent, root)

    table = bus.start_table(bus.certs)

    async def tidy() -> bool:
        # What was asked is not answered for ever, and nobody keeps the others from ordering.
        return {key for key, _ in table.items()} == {"own", "issued", "account"}

    await until_async(tidy)
    account = await entry(bus, "account")

    # Whoever comes later shows it without another order, and it outlives a start without files.
    await other_agent.stop()
    await other_agent.start(**settings(pebble))
    await other_agent.ready()
    await until_async(lambda: issued(other_agent, root))
    assert await shown(other_agent.public) == der
    assert (await orders(stopped_agent, "issued"), await orders(other_agent, "issued")) == (1, 0)

    # When two thirds of its time are over it is renewed, by the same account, and by one of the two.
    old = make("hub.mlhub.test", alternatives=["www.mlhub.test"], days=(-61, 29))
    await bus.certs.put("issued", TlsEntry(Certificate(kind="certificate", pem=old.key + old.certificate)))

    async def renewed() -> bool:
        both = [await shown(agent.public) for agent in (stopped_agent, other_agent)]
        return both[0] == both[1] != der and parsed(both[0]).issuer == parsed(der).issuer

    await until_async(renewed)
    assert await orders(stopped_agent, "issued") + await orders(other_agent, "issued") == 2
    assert await entry(bus, "account") == account


async def test_an_authority_that_is_away_is_asked_again_later(
    stopped_agent: Agent, other_agent: Agent, pebble: Pebble, bus: Bus
) -> None:
    await stopped_agent.start(**settings(pebble))
    await stopped_agent.ready()
    await other_agent.start(**settings(pebble))
    await other_agent.ready()

    async def failed() -> bool:
        found = await entry(bus, "turn")
        return found is not None and isinstance(found.root, AcmeTurn) and found.root.failures == 1

    await until_async(failed)
    # Meanwhile people get our own, and nobody asks again for a minute.
    assert {*DOMAINS, "localhost"} < names_of(await shown(stopped_agent.public))
    assert await stopped_agent.problems() == {}
    await asyncio.sleep(6)
    assert await orders(stopped_agent, "failed") + await orders(other_agent, "failed") == 1
    found = await entry(bus, "turn")
    assert found is not None
    assert isinstance(found.root, AcmeTurn)
    assert timedelta(seconds=40) < found.root.until - datetime.now(UTC) < timedelta(seconds=70)
    assert found.root.problem is not None
    assert pebble.directory in found.root.problem

    await pebble.start()
    over = found.root.model_copy(update={"until": datetime.now(UTC)})
    await bus.certs.put("turn", TlsEntry(over))
    root = await pebble.root()
    await until_async(lambda: issued(stopped_agent, root))
    await until_async(lambda: issued(other_agent, root))
