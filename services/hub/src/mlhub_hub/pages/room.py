"""What the machines have left, said on the form."""

from mlhub_hub.context import HubContext
from mlhub_hub.pages.words import size
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord


def room_now(context: HubContext) -> str:
    """A sentence on what is free; empty where nothing can be said."""
    pool = context.settings.pool
    workers = [worker for worker in context.workers.values() if worker.pool == pool]
    records = [record for record in context.workspaces.values() if record.pool == pool]
    return sentence(workers, records)


def sentence(workers: list[WorkerLease], records: list[WorkspaceRecord]) -> str:
    """What these workers have left beside these workspaces."""
    if not workers:
        return "No machine is there to run workspaces just now: a new one waits in line."
    here = [record for record in records if record.phase.takes_room]
    waiting = sum(record.phase is Phase.QUEUED for record in records)
    parts = [*_promised(workers, here), *_places(workers, waiting)]
    return "; ".join(parts) + "." if parts else ""


def _promised(workers: list[WorkerLease], here: list[WorkspaceRecord]) -> list[str]:
    parts = []
    cpus = sum(worker.cpu_total or 0 for worker in workers)
    if cpus and all(record.spec.cpu_limit for record in here):
        free = max(cpus - sum(record.spec.cpu_limit or 0 for record in here), 0)
        parts.append(f"{free:g} of {cpus:g} cores free")
    memory = sum(worker.mem_total or 0 for worker in workers)
    if memory and all(record.spec.mem_limit for record in here):
        left = max(memory - sum(record.spec.mem_limit or 0 for record in here), 0)
        parts.append(f"{size(left)} of {size(memory)} memory free")
    return parts


def _places(workers: list[WorkerLease], waiting: int) -> list[str]:
    capacities = [worker.capacity for worker in workers]
    if waiting:
        return [f"{waiting} {'workspace waits' if waiting == 1 else 'workspaces wait'} in line"]
    if any(capacity is None for capacity in capacities):
        return []
    free = max(sum(capacity or 0 for capacity in capacities) - sum(worker.running for worker in workers), 0)
    return [f"room for {free} more" if free else "no room just now: a new one waits in line"]
