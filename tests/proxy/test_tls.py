"""The public port's certificate: where it comes from, and how another takes its place."""

import asyncio
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from mlhub_shared.bus import Bus
from tests.proxy.conftest import MakeBackend, applied, put, ready
from tests.proxy.stack import PROGRAMS, Agent, ask
from tests.proxy.tls import ANY, client, handshake, make, names_of, parsed, shown
from tests.support.nats_server import NatsServer
from tests.support.waiting import until_async


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """The folder that is mounted."""
    folder = tmp_path / "ssl"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("program", PROGRAMS)
async def test_another_certificate_takes_over_and_no_connection_ends(
    stopped_agent: Agent, bus: Bus, backend: MakeBackend, certificates: Path, program: str
) -> None:
    first, second = make("one.example"), make("two.example")
    first.put(certificates)
    await stopped_agent.start(TLS="on", CERT_DIR=str(certificates), HAPROXY=program)
    await stopped_agent.ready()
    alice = await backend("alice")
    await applied(bus, workspaces=await put(bus, ready(alice)))
    port, process = stopped_agent.public, stopped_agent.haproxy
    url = f"https://127.0.0.1:{port}/user/alice"
    connector = aiohttp.TCPConnector(ssl=ANY)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(f"{url}/ws") as socket,
        session.get(f"{url}/stream") as download,
    ):
        assert await download.content.readuntil(b"\n\n") == b"data: 0\n\n"
        assert await shown(port) == first.der
        second.put(certificates)

        async def changed() -> bool:
            return await shown(port) == second.der

        await until_async(changed)
        await socket.send_str("still here")
        assert await socket.receive_str() == "alice:still here"
        for number in (1, 2):
            alice.proceed.set()
            assert await download.content.readuntil(b"\n\n") == f"data: {number}\n\n".encode()
        alice.proceed.set()
    # An agent that comes after a crash brings what has changed since, to the same HAProxy.
    await stopped_agent.kill()
    third = make("three.example")
    third.put(certificates)
    await stopped_agent.start()

    async def brought() -> bool:
        return await shown(port) == third.der

    await until_async(brought)
    assert stopped_agent.haproxy == process
    # The next start has it from the beginning.
    await stopped_agent.stop()
    await stopped_agent.start()
    await stopped_agent.ready()
    assert await shown(port) == third.der


async def test_a_certificate_that_does_not_serve_is_refused_and_the_old_one_stays(
    stopped_agent: Agent, certificates: Path
) -> None:
    good, other = make("one.example"), make("two.example")
    good.put(certificates)
    await stopped_agent.start(TLS="on", CERT_DIR=str(certificates))
    await stopped_agent.ready()
    for bad, why in (
        (other.certificate, "not that of the first certificate"),
        (make("old.example", days=(-20, -1)).certificate, "not that of"),
        ("nonsense", "can't be read"),
    ):
        (certificates / "cert.crt").write_text(bad)

        async def told(why: str = why) -> bool:
            return why in (await stopped_agent.problems()).get("certificate", "")

        await until_async(told)
        assert await shown(stopped_agent.public) == good.der
        assert why in stopped_agent.log.read_text()
    make("old.example", days=(-20, -1)).put(certificates)

    async def expired() -> bool:
        return "expired" in (await stopped_agent.problems()).get("certificate", "")

    await until_async(expired)
    assert await shown(stopped_agent.public) == good.der
    other.put(certificates)
    await stopped_agent.ready()
    assert await shown(stopped_agent.public) == other.der
    secret = other.key.splitlines()[1]
    assert secret not in stopped_agent.log.read_text()


async def test_our_own_certificate_names_this_host_and_is_kept(stopped_agent: Agent, nats_server: NatsServer) -> None:
    settings = {"TLS": "on", "PUBLIC_HOST": "0.0.0.0", "TLS_NAMES": "hub.example,*.tools.example,192.0.2.7"}  # noqa: S104
    await stopped_agent.start(**settings)
    await stopped_agent.ready()
    der = await shown(stopped_agent.public)
    certificate = parsed(der)
    assert {"localhost", "127.0.0.1", "::1", "hub.example", "*.tools.example", "192.0.2.7"} < names_of(der)
    assert timedelta(days=360) < certificate.not_valid_after_utc - datetime.now(UTC) < timedelta(days=366)
    # Whoever is shown its certificate can rely on it.
    trusting = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(der))
    assert (await ask(stopped_agent.public, "/", tls=trusting)).status == 200

    kept = stopped_agent.socket.parent / "tls.pem"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.read_text().splitlines()[1] not in stopped_agent.log.read_text()
    gauge = "mlhub_proxy_certificate_expires_timestamp_seconds"
    line = next(row for row in (await stopped_agent.get("/metrics")).text.splitlines() if row.startswith(gauge))
    assert float(line.split()[1]) == certificate.not_valid_after_utc.timestamp()

    # Without the bus, and after a start that has nothing but what is shared.
    await stopped_agent.stop()
    await nats_server.stop()
    await stopped_agent.start()

    async def same() -> bool:
        try:
            return await shown(stopped_agent.public) == der
        except OSError:
            return False

    await until_async(same)
    await nats_server.start()
    await stopped_agent.ready()
    assert await shown(stopped_agent.public) == der


async def test_replicas_share_one_certificate(stopped_agent: Agent, other_agent: Agent) -> None:
    await asyncio.gather(stopped_agent.start(TLS="on", TLS_NAMES="old.example"), other_agent.start())
    await asyncio.gather(stopped_agent.ready(), other_agent.ready())

    async def one() -> bool:
        return await shown(stopped_agent.public) == await shown(other_agent.public)

    await until_async(one)
    der = await shown(stopped_agent.public)
    # A replica without any files of its own gets it too.
    await other_agent.stop()
    (other_agent.socket.parent / "tls.pem").unlink()
    await other_agent.start()
    await other_agent.ready()
    await until_async(one)
    assert await shown(stopped_agent.public) == der
    # A name that it lacks makes another one for both, with which both are content.
    await other_agent.stop()
    await other_agent.start(TLS_NAMES="new.example")
    await other_agent.ready()

    async def renewed() -> bool:
        return {"old.example", "new.example"} < names_of(await shown(stopped_agent.public)) and await one()

    await until_async(renewed)
    der = await shown(stopped_agent.public)
    await asyncio.sleep(3)
    assert await shown(other_agent.public) == der
    assert await shown(stopped_agent.public) == der


async def test_only_modern_tls_is_spoken(stopped_agent: Agent) -> None:
    await stopped_agent.start(TLS="on", HSTS_SECONDS="86400")
    await stopped_agent.ready()
    port = stopped_agent.public

    async def speak(version: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> str:
        context = client()
        context.set_ciphers(ciphers)
        context.maximum_version = context.minimum_version = version
        chosen = (await handshake(port, context)).cipher()
        return chosen[0] if chosen else ""

    assert "GCM" in await speak(ssl.TLSVersion.TLSv1_2)
    assert (await speak(ssl.TLSVersion.TLSv1_3)).startswith("TLS_")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises((ssl.SSLError, ConnectionError)):
        await speak(ssl.TLSVersion.TLSv1_1)
    for weak in ("AES128-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await speak(ssl.TLSVersion.TLSv1_2, f"{weak}:@SECLEVEL=0")

    assert (await ask(port, "/", tls=ANY)).headers["strict-transport-security"] == "max-age=86400"
    assert "strict-transport-security" not in (await ask(port, "/")).headers

    offers = client()
    offers.set_alpn_protocols(["h2", "http/1.1"])
    assert (await handshake(port, offers)).selected_alpn_protocol() == "h2"
