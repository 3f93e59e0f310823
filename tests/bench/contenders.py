"""Hubs that spawn nothing real, side by side: ours and the stock one."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tests.bench.bench import Bench
from tests.bench.deployment import Deployment
from tests.bench.peers.stock_hub import StockHub
from tests.bench.processes import Child
from tests.bench.rest import HubClient
from tests.bench.stamps import Stamps
from tests.bench.static_server import StaticServer

OURS, STOCK, STOCK_WAL = "ours", "stock", "stock with WAL"


@dataclass(frozen=True)
class Contender:
    """A hub that runs, with users who may spawn."""

    client: HubClient
    process: Child
    stamps: Stamps
    """`spawn:USER`, when the request came to whoever has to fulfil it."""


@asynccontextmanager
async def hubs(bench: Bench, users: Sequence[str], *, stock: Sequence[str]) -> AsyncIterator[Mapping[str, Contender]]:
    """Ours first, then the stock ones asked for; each with these users, all on one web server as workspaces."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(StaticServer("workspaces", bench.folder))
        contenders = {OURS: await _ours(bench, server, stack)}
        for name in stock:
            contenders[name] = await _stock(bench, server, stack, wal=name == STOCK_WAL)
        for contender in contenders.values():
            await stack.enter_async_context(contender.client)
            for first in range(0, len(users), 50):
                await contender.client.create_users(users[first : first + 50])
        yield contenders


async def _ours(bench: Bench, server: StaticServer, stack: AsyncExitStack) -> Contender:
    deployment = await stack.enter_async_context(Deployment(bench.folder / "ours"))
    await deployment.start_proxy()
    await deployment.start_scripted_worker(server.port)
    return Contender(deployment.client(), await deployment.start_hub(), deployment.stamps)


async def _stock(bench: Bench, server: StaticServer, stack: AsyncExitStack, *, wal: bool) -> Contender:
    folder = bench.folder / ("stock-wal" if wal else "stock")
    hub = await stack.enter_async_context(StockHub(folder, wal=wal, server_port=server.port, chp=bench.chp))
    await hub.answers(f"{hub.url}/hub/api/")
    return Contender(hub.client(), hub, hub.stamps)
