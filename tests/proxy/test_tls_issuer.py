"""The issuer by itself: what becomes of a certificate that the bus can't take."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlhub_proxy.certificates.authority import Authority
from mlhub_proxy.certificates.issuer import Issuer
from mlhub_proxy.settings import ProxySettings
from mlhub_shared.bus import Bus
from mlhub_shared.contracts.services import Certificate
from mlhub_shared.runtime.clock import utc_now
from mlhub_shared.tasks import end_tasks
from tests.proxy.tls import make
from tests.support.nats_server import NatsServer
from tests.support.waiting import until_async

DOMAIN = "hub.example"


@dataclass(frozen=True)
class LastWord(Authority):
    """Issues at once, and at that very moment the bus goes away."""

    bus: NatsServer
    issued: list[str] = field(default_factory=list)

    async def order(
        self, domains: Sequence[str], account_key: str, publish: Callable[[Mapping[str, str]], Awaitable[None]]
    ) -> str:
        made = make(domains[0])
        self.issued.append(made.key + made.certificate)
        await self.bus.stop()
        return self.issued[-1]


async def test_a_certificate_that_the_bus_was_away_for_is_neither_lost_nor_ordered_again(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    settings = ProxySettings(data_dir=tmp_path, acme_domains=DOMAIN)
    authority = LastWord(settings.acme_directory, None, None, nats_server)
    running = asyncio.create_task(Issuer(settings, authority, bus.start_table(bus.certs), utc_now).run())
    try:

        async def is_issued() -> bool:
            return bool(authority.issued)

        await until_async(is_issued)
        # Longer than a write waits for the bus by itself.
        await asyncio.sleep(17)
        await nats_server.start()

        async def is_shared() -> bool:
            return await bus.certs.get("issued") is not None and await bus.certs.get("turn") is None

        await until_async(is_shared)
    finally:
        await end_tasks(running)
    [pem] = authority.issued
    found = await bus.certs.get("issued")
    assert found is not None
    assert isinstance(found.value.root, Certificate)
    assert found.value.root.pem.split() == pem.split()
