"""What a proxy tells of its certificate, for those who can't ask an authority about it."""

import base64
import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mlhub_shared.bus import Bus
from tests.proxy.stack import Agent
from tests.proxy.tls import shown
from tests.support.waiting import until_async


async def told(bus: Bus) -> set[str | None]:
    table = bus.start_table(bus.proxies)
    await table.synced()
    return {state.tls_pin for state in table.values()}


async def test_the_pin_is_that_of_the_certificate_which_is_shown(stopped_agent: Agent, bus: Bus) -> None:
    await stopped_agent.start(TLS="on")
    await stopped_agent.ready()
    public = x509.load_der_x509_certificate(await shown(stopped_agent.public)).public_key()
    digest = hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    expected = f"sha256//{base64.b64encode(digest).decode()}"

    async def is_told() -> bool:
        return await told(bus) == {expected}

    await until_async(is_told)


async def test_without_tls_there_is_none(stopped_agent: Agent, bus: Bus) -> None:
    await stopped_agent.start(TLS="off")
    await stopped_agent.ready()

    async def is_told() -> bool:
        return await told(bus) == {None}

    await until_async(is_told)
