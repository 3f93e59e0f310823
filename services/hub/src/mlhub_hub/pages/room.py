"""What the machines have left, and what one user's total leaves him, said on the form."""

from dataclasses import dataclass

from mlhub_hub.context import HubContext
from mlhub_hub.pages.limits import Largest
from mlhub_hub.pages.words import cores, size
from mlhub_hub.totals import others_up
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.policy import Policy
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord, WorkspaceSpec


@dataclass(frozen=True)
class NodeGpus:
    """The GPUs of one machine."""

    node: str
    free: tuple[str, ...]
    taken: tuple[str, ...]


@dataclass(frozen=True)
class Room:
    """All that the form says of it."""

    now: str
    """What is free. Empty where nothing can be said."""
    yours: str
    """What the user's total leaves him. Empty: there is no total."""
    gpus: list[NodeGpus]
    largest: Largest


def room_for(context: HubContext, workspace: WorkspaceId) -> Room:
    """What there is for this workspace."""
    workers = context.workers_of_pool()
    records = [record for record in context.workspaces.values() if record.pool == context.settings.pool]
    return Room(
        now=sentence(workers, records),
        yours=left_of_total(others_up(context, workspace), context.policy),
        gpus=gpus_of(workers),
        largest=Largest(
            cpu=max((worker.cpu_total or 0 for worker in workers), default=0) or None,
            mem=max((worker.mem_total or 0 for worker in workers), default=0) or None,
        ),
    )


def gpus_of(workers: list[WorkerLease]) -> list[NodeGpus]:
    """The machines that have GPUs and take workspaces."""
    return [
        NodeGpus(
            worker.node,
            free=tuple(gpu for gpu in worker.gpus if gpu in worker.gpus_free),
            taken=tuple(gpu for gpu in worker.gpus if gpu not in worker.gpus_free),
        )
        for worker in sorted(workers, key=lambda worker: worker.node)
        if worker.gpus and not worker.draining
    ]


def left_of_total(others: list[WorkspaceSpec], policy: Policy) -> str:
    """What this user's running workspaces may have together, and what of it is left."""
    parts = []
    if policy.user_max_workspaces is not None:
        left = max(policy.user_max_workspaces - len(others), 0)
        parts.append(f"{left} of {policy.user_max_workspaces} workspaces")
    if policy.user_max_cpu is not None:
        cpus = max(policy.user_max_cpu - sum(other.cpu_limit or 0 for other in others), 0)
        parts.append(f"{cpus:g} of {cores(policy.user_max_cpu)}")
    if policy.user_max_mem is not None:
        memory = max(policy.user_max_mem - sum(other.mem_limit or 0 for other in others), 0)
        parts.append(f"{size(memory)} of {size(policy.user_max_mem)} memory")
    if policy.user_max_gpus is not None:
        gpus = max(policy.user_max_gpus - sum(other.gpu_count for other in others), 0)
        parts.append(f"{gpus:g} of {policy.user_max_gpus} GPUs")
    return f"Left of what your running workspaces may have together: {', '.join(parts)}." if parts else ""


def sentence(workers: list[WorkerLease], records: list[WorkspaceRecord]) -> str:
    """What these workers have left beside these workspaces."""
    if not workers:
        return "No machine is there to run workspaces just now: a new one waits in line."
    open_workers = [worker for worker in workers if not worker.draining]
    if not open_workers:
        return "Every machine is being emptied for maintenance: a new one waits in line."
    nodes = {worker.node for worker in open_workers}
    here = [record for record in records if record.phase.takes_room and record.node in nodes]
    waiting = sum(record.phase is Phase.QUEUED for record in records)
    parts = [*_promised(open_workers, here), *_places(open_workers, waiting)]
    words = "; ".join(parts)
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _promised(workers: list[WorkerLease], here: list[WorkspaceRecord]) -> list[str]:
    parts = []
    cpus = sum(worker.cpu_capacity or worker.cpu_total or 0 for worker in workers)
    if cpus and all(record.spec.cpu_limit for record in here):
        free = max(cpus - sum(record.spec.cpu_limit or 0 for record in here), 0)
        parts.append(f"{free:g} of {cpus:g} cores free")
    memory = sum(worker.mem_capacity or worker.mem_total or 0 for worker in workers)
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
