"""What HTTPS through the one port costs, compared with HAProxy alone, and what SSH on that port adds to plain HTTP."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from tests.bench.bench import Bench
from tests.bench.certificate import make_certificate
from tests.bench.deployment import Deployment, put_records
from tests.bench.load import put_load
from tests.bench.peers.direct_haproxy import DirectHaproxy, program
from tests.bench.processes import Child
from tests.bench.ready_record import ready_record
from tests.bench.sampling import rotate
from tests.bench.static_server import StaticServer
from tests.support.ports import free_port

NAME = "https"
_ROUTES = 10
_HTTPS, _DIRECT, _ONE_PORT, _HTTP = "HTTPS", "HAProxy alone, HTTPS", "HTTP and SSH", "HTTP"


@dataclass(frozen=True)
class Contender:
    """A proxy that runs."""

    process: Child
    url: str


async def measure(bench: Bench) -> None:
    """The same requests over kept connections; each proxy alone, in turn."""
    certificate = make_certificate(bench.folder / "certificate")
    gateway = {"MLHUB_PROXY_SSH_GATEWAY": f"127.0.0.1:{free_port()}"}
    tls = {"MLHUB_PROXY_TLS": "on", "MLHUB_PROXY_CERT_DIR": certificate.parent}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(StaticServer("workspaces", bench.folder))
        direct = await stack.enter_async_context(
            DirectHaproxy(bench.folder / "direct", certificate=certificate, server_port=server.port)
        )
        contenders = {_DIRECT: Contender(direct, f"https://127.0.0.1:{direct.port}")}
        for name, settings in ((_HTTPS, gateway | tls), (_ONE_PORT, gateway), (_HTTP, {})):
            contenders[name] = await stack.enter_async_context(_ours(bench, server, name, settings))
        results = await rotate(bench.runs, contenders, partial(_round, bench))
    _report(bench, results)


@asynccontextmanager
async def _ours(
    bench: Bench, server: StaticServer, name: str, settings: Mapping[str, object]
) -> AsyncIterator[Contender]:
    folder = bench.folder / name.replace(" ", "-")
    same = {"MLHUB_PROXY_HAPROXY": program()}
    async with (
        StaticServer("hub", folder, status=404) as hub,
        Deployment(folder, settings=same | dict(settings)) as deployment,
        deployment.bus() as bus,
    ):
        users = [f"user{number}" for number in range(_ROUTES)]
        records = [ready_record(deployment.hub, user, node="elsewhere", port=server.port) for user in users]
        await put_records(bus, records)
        proxy = await deployment.start_proxy(hub_url=hub.url)
        scheme = "https" if "MLHUB_PROXY_TLS" in settings else "http"
        url = f"{scheme}://127.0.0.1:{deployment.ports['public']}"
        await proxy.answers(f"{url}/user/{users[-1]}/")
        yield Contender(proxy, url)


async def _round(bench: Bench, one: Contender) -> tuple[float, float]:
    """Requests per second, and CPU microseconds of one."""
    paths = [f"/user/user{number}/" for number in range(_ROUTES)]
    before = one.process.cpu_seconds()
    load = await put_load(one.url, paths, seconds=bench.amount(3, 1), folder=bench.folder)
    return load.per_second, (one.process.cpu_seconds() - before) / load.requests * 1e6


def _report(bench: Bench, results: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    rates = {name: [rate for rate, _ in rounds] for name, rounds in results.items()}
    costs = {name: [cost for _, cost in rounds] for name, rounds in results.items()}
    for name in results:
        bench.report.add(NAME, f"{name}, load", "requests/s", rates[name])
        bench.report.add(NAME, f"{name}, CPU", "us/request", costs[name])
    for what, ours, theirs in (
        ("HTTPS, ours / HAProxy alone", _HTTPS, _DIRECT),
        ("HTTP, with SSH / without", _ONE_PORT, _HTTP),
    ):
        bench.report.versus(NAME, f"{what}, requests/s", rates[ours], rates[theirs])
        bench.report.versus(NAME, f"{what}, CPU", costs[ours], costs[theirs])
