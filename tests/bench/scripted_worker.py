"""A worker that makes a workspace ready the moment it is asked to: `python -m tests.bench.scripted_worker`.

It runs nothing; all its workspaces answer at one web server. What is left to measure is everything but the work.
"""

import argparse
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic_settings import SettingsConfigDict

from mlhub_shared.bus import Delivery, Lease
from mlhub_shared.contracts.commands import Command, DeleteWorkspace, SpawnWorkspace, StopWorkspace, decode_command
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.subjects import command_durable
from mlhub_shared.contracts.workspace import Endpoint, Phase, Reason, Wanted, WorkspaceRecord
from mlhub_shared.runtime.service import Runtime, main
from mlhub_shared.runtime.settings import CommonSettings
from tests.bench.stamps import Stamps

POOL, NODE = "default", "scripted"
_AT_ONCE = 16


class ScriptedWorkerSettings(CommonSettings):
    """It stands where the real one would."""

    model_config = SettingsConfigDict(env_prefix="MLHUB_SPAWNER_WORKER_", extra="ignore", populate_by_name=True)


class ScriptedWorker:
    """Does what a command says, in one write to the record."""

    def __init__(self, runtime: Runtime, endpoint: Endpoint, stamps: Stamps) -> None:
        self._bus, self._endpoint, self._stamps = runtime.bus, endpoint, stamps

    async def handle(self, command: Command, delivery: Delivery) -> None:
        """Note when the command came, then write what the worker would have made of it."""
        self._stamps.note(f"{command.kind}:{command.workspace.user}")
        if isinstance(command, SpawnWorkspace):
            await self._bus.workspaces.put(command.workspace.name, self._ready(command, delivery))
        elif isinstance(command, StopWorkspace):
            await self._stop(command)
        elif isinstance(command, DeleteWorkspace):
            await self._bus.workspaces.delete(command.workspace.name)
            await self._bus.forget_commands(delivery.subject, up_to=delivery.sequence)

    def _ready(self, command: SpawnWorkspace, delivery: Delivery) -> WorkspaceRecord:
        now = datetime.now(UTC)
        lifetime = command.spec.lifetime
        return WorkspaceRecord(
            workspace=command.workspace,
            generation=command.generation,
            wanted=Wanted.RUNNING,
            phase=Phase.READY,
            pool=POOL,
            node=NODE,
            base_url=command.base_url,
            spec=command.spec,
            sequence=delivery.sequence,
            endpoint=self._endpoint,
            progress=100,
            requester=command.requester,
            correlation_id=command.correlation_id,
            requested_at=command.at,
            phase_since=now,
            started_at=now,
            ready_at=now,
            expires_at=now + lifetime if lifetime else None,
        )

    async def _stop(self, command: StopWorkspace) -> None:
        found = await self._bus.workspaces.get(command.workspace.name)
        if found is None:
            return
        changes = {
            "generation": command.generation,
            "wanted": Wanted.STOPPED,
            "phase": Phase.STOPPED,
            "reason": Reason.ASKED,
            "endpoint": None,
            "phase_since": datetime.now(UTC),
            "expires_at": None,
        }
        await self._bus.workspaces.put(command.workspace.name, found.value.model_copy(update=changes))


@asynccontextmanager
async def build(runtime: Runtime, *, endpoint: Endpoint, stamps: Stamps) -> AsyncIterator[None]:
    """Consume the commands of the pool and of the node, and hold a lease as every worker does."""
    bus, worker = runtime.bus, ScriptedWorker(runtime, endpoint, stamps)
    for node in (None, NODE):
        bus.consume(
            stream=bus.subjects.commands,
            durable=command_durable(POOL, node),
            filters=[bus.subjects.commands_of(POOL, node)],
            decode=decode_command,
            handler=worker.handle,
            parallel=_AT_ONCE,
        )
    lease = WorkerLease(node=NODE, pool=POOL, backend="process", started_at=datetime.now(UTC))
    runtime.keep_running("lease", Lease(bus.workers, NODE, lambda: lease).run)
    yield


def arguments() -> argparse.Namespace:
    """What the deployment passes on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint-port", type=int, required=True)
    parser.add_argument("--stamps", type=Path, required=True)
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    given = arguments()
    main(
        "spawner-worker",
        ScriptedWorkerSettings(),
        partial(
            build,
            endpoint=Endpoint(host="127.0.0.1", port=given.endpoint_port),
            stamps=Stamps(given.stamps),
        ),
    )
