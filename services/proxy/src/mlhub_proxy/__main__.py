"""Runs HAProxy, and the agent that keeps it in step with the bus."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mlhub_proxy.agent import Agent
from mlhub_proxy.api import add_endpoints
from mlhub_proxy.binary import find_haproxy
from mlhub_proxy.certificates.keeper import Keeper
from mlhub_proxy.config import make_config
from mlhub_proxy.haproxy import PID_FILE, HAProxy
from mlhub_proxy.maps import Maps
from mlhub_proxy.neighbours import Neighbours
from mlhub_proxy.place import placed
from mlhub_proxy.runtime_api import RuntimeApi
from mlhub_proxy.settings import ProxySettings
from mlhub_proxy.tools.service import tools
from mlhub_shared.runtime import configuration
from mlhub_shared.runtime.clock import utc_now
from mlhub_shared.runtime.service import Runtime, serve
from mlhub_shared.tasks import end_tasks


async def run(settings: ProxySettings) -> None:
    """Serve until SIGTERM or SIGINT; HAProxy serves before the bus is there, by the last tables."""
    program, version = find_haproxy(settings.haproxy)
    folder = private_folder(settings.data_dir)
    api = RuntimeApi(folder)
    maps = Maps(api, folder)
    at_place = await asyncio.to_thread(placed, settings)
    neighbours = Neighbours(at_place, api, folder)
    haproxy = HAProxy(
        program.absolute(),
        make_config(at_place, version),
        api,
        folder=folder,
        pid_file=settings.data_dir.absolute() / PID_FILE,
    )

    certificates = Keeper(settings, folder, api, utc_now) if settings.tls else None

    async def before_start() -> None:
        await maps.save()
        await neighbours.prepare()
        if certificates is not None:
            await certificates.prepare()

    async def after_start() -> None:
        if certificates is not None:
            certificates.resync()
        await neighbours.resync()
        await maps.resync()

    @asynccontextmanager
    async def build(runtime: Runtime) -> AsyncIterator[None]:
        pin = (lambda: certificates.pin) if certificates is not None else lambda: None
        agent = Agent(runtime.bus, settings, maps, api, runtime.clock, tls_pin=pin)
        add_endpoints(runtime.app, agent=agent, maps=maps, api=api)
        runtime.health.require("haproxy", lambda: haproxy.problem)
        runtime.health.require("routes", lambda: maps.problem)
        runtime.health.require("counters", lambda: agent.problem)
        runtime.keep_running("follow", agent.follow)
        runtime.keep_running("lease", agent.lease.run)
        runtime.keep_running("activity", agent.watch_activity)
        runtime.keep_running("save", maps.keep_saved)
        runtime.keep_running("neighbours", neighbours.follow)
        if certificates is not None:
            keep_certificates(runtime, settings, certificates)
        async with tools(runtime, settings, agent.record, api.path):
            yield

    supervising = asyncio.ensure_future(haproxy.run(before_start=before_start, after_start=after_start))
    asked_to_end = False
    try:
        await serve("proxy", settings, build)
        asked_to_end = True
    finally:
        await end_tasks(supervising)
        if asked_to_end or haproxy.was_found is False:
            await haproxy.stop(settings.shutdown_grace)
        else:
            # An agent that fails at its start must not take open connections along: the next one finds HAProxy again.
            haproxy.release()
        api.close()


def keep_certificates(runtime: Runtime, settings: ProxySettings, certificates: Keeper) -> None:
    """Follow the certificate that is mounted or shared, and ask an authority for one where that is wanted."""
    shared = runtime.bus.start_table(runtime.bus.certs)
    runtime.health.require("certificate", lambda: certificates.problem)
    runtime.keep_running("certificates", lambda: certificates.follow(shared))
    if settings.acme_domains:
        # Their library takes longer to load than all the rest.
        from mlhub_proxy.certificates.authority import Authority
        from mlhub_proxy.certificates.issuer import Issuer

        authority = Authority(settings.acme_directory, settings.acme_ca_file, settings.acme_email or None)
        runtime.keep_running("acme", Issuer(settings, authority, shared, runtime.clock).run)


def private_folder(data_dir: Path) -> Path:
    """HAProxy's folder, which nobody else may enter: whoever reaches its socket commands it."""
    folder = data_dir.absolute() / "haproxy"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
    return folder


if __name__ == "__main__":
    asyncio.run(run(configuration.load(ProxySettings)))
