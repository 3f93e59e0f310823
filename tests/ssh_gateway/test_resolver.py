"""Where the attach endpoint of a workspace is, as far as the gateway knows by itself."""

import asyncio

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.queries import AttachAddress
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import Phase
from mlhub_ssh_gateway.resolver import Resolver
from tests.support.makers import NOW, record
from tests.support.waiting import until


async def test_any_worker_that_shares_the_node_will_do_while_none_answers(bus: Bus) -> None:
    records, leases = bus.start_table(bus.workspaces), bus.start_table(bus.workers)
    await asyncio.gather(records.synced(), leases.synced())
    resolver, ready = Resolver(bus, records, leases), record(phase=Phase.READY, node="n1")
    await bus.workspaces.put(ready.name, ready)
    for port, replica in enumerate(("r1", "r2"), start=1):
        lease = WorkerLease(
            node="n1",
            replica=replica,
            pool="default",
            backend="kubernetes",
            attach=AttachAddress(host="127.0.0.1", port=port, host_key="ssh-ed25519 AAAA"),
            started_at=NOW,
        )
        await bus.workers.put(lease.key, lease)
    await until(lambda: len(records) == 1 and len(leases) == 2)
    assert (await resolver.locate(ready.workspace)).port in {1, 2}
    await bus.workers.delete("n1.r1")
    await until(lambda: len(leases) == 1)
    assert (await resolver.locate(ready.workspace)).port == 2
