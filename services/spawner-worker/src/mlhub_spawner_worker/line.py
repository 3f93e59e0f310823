"""The line before a pool: who comes next, which of its workers takes him, and what the others wait for.

Every worker gives everybody in line his turn and knows who is best placed to take him. The best claims at once; the
others are ready one after the other, so that nobody waits for a worker that has died. Who writes first has it.
Of the workers that share a node one serves the line; the others claim only what comes while there is no end to room.
"""

import asyncio
import contextlib
import time

import structlog

from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.contracts.policy import Policy
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord, WorkspaceSpec
from mlhub_shared.errors import MLHubError
from mlhub_spawner_worker import gpus, lifecycle, metrics
from mlhub_spawner_worker.driver import Tools
from mlhub_spawner_worker.lifecycle import Place
from mlhub_spawner_worker.nodes import Nodes
from mlhub_spawner_worker.placement import Need, Node, Pool, Site, shares_gpus, waits_for
from mlhub_spawner_worker.records import Decide
from mlhub_spawner_worker.siblings import Siblings

log = structlog.get_logger(__name__)

LOOK_AGAIN = 15.0
"""Seconds after which the line is looked at though nothing seems to have changed."""

STEP = 0.3
"""Seconds that each worker waits for the one before it in the ranking: a claim takes a few round trips to the bus."""

_TABLE_LAGS = 0.02
"""Seconds for the watch to bring what another worker wrote."""

_BETWEEN_WORDS = 1.0
"""Seconds between two times that those in line are told what they wait for."""


class Line:
    """Claims for this worker's node what waits in line."""

    def __init__(self, tools: Tools, nodes: Nodes, siblings: Siblings, place: Place) -> None:
        self._tools, self._store, self._nodes, self._place = tools, tools.store, nodes, place
        self._siblings = siblings
        self._policy: Policy = tools.policy
        self._room = asyncio.Lock()
        self._looks = asyncio.Event()
        self._free_since: dict[str, float] = {}
        self._told_at = -_BETWEEN_WORDS
        self._is_closed = False

    def look(self) -> None:
        """Look at the line again: something has changed."""
        self._looks.set()

    def close(self) -> None:
        """Claim nobody any more: the worker ends."""
        self._is_closed = True

    def alone(self, spec: WorkspaceSpec) -> "asyncio.Lock | contextlib.nullcontext[None]":
        """Where there is an end to room, one spawn at a time looks for it."""
        return self._room if self._is_scarce(spec) else contextlib.nullcontext()

    def joined(self, record: WorkspaceRecord) -> WorkspaceRecord:
        """A record on its way into the line: claimed if it is this node's turn at once, else told what it waits for."""
        if record.phase is not Phase.QUEUED:
            return record
        sites = self._sites()
        pool = Pool(sites)
        for other in self._waiting():
            if (other.sequence, other.name) < (record.sequence, record.name):
                pool.turn(Need.of(other, self._policy))
        need = Need.of(record, self._policy)
        is_mine = self._siblings.leads or not self._is_scarce(record.spec)
        if pool.turn(need)[:1] == (self._place.node,) and is_mine and not self._is_closed:
            return self._claimed(record)
        return lifecycle.saying(record, Phase.QUEUED, waits_for(need, sites))

    async def serve(self) -> None:
        """Claim what waits in line whenever there is room."""
        backoff = Backoff()
        while True:
            self._looks.clear()
            try:
                while (pause := await self._claim_next()) is None:
                    backoff.reset()
                pause = min(pause, await self._tell())
            except MLHubError as error:
                log.warning("line.not_served", error=str(error))
                await backoff.sleep()
                continue
            self._count()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._looks.wait(), pause)

    async def _claim_next(self) -> float | None:
        """Claim somebody; how many seconds to wait for the next look if there is nobody."""
        async with self._room:
            first, pause = self._next()
            if first is None:
                return pause
            is_claimed = False

            def claim(record: WorkspaceRecord | None) -> WorkspaceRecord | None:
                nonlocal is_claimed
                if record is None or record.generation != first.generation or not self._serves:
                    return record
                new = self._claimed(record)
                is_claimed = new != record
                return new

            await self._store.change(first.name, claim)
        if not is_claimed:
            # Another worker was quicker; this one's table learns of it in a moment.
            await asyncio.sleep(_TABLE_LAGS)
        return None

    @property
    def _serves(self) -> bool:
        return self._siblings.leads and not self._is_closed

    def _is_scarce(self, spec: WorkspaceSpec) -> bool:
        own, policy = self._nodes.own, self._policy
        limits = (
            (own.capacity, own.cpu_capacity, own.mem_capacity, None if own.gpus_counted else spec.gpus),
            (policy.user_max_workspaces, policy.user_max_cpu, policy.user_max_mem, policy.user_max_gpus),
        )
        return any(limit is not None for some in limits for limit in some)

    def _next(self) -> tuple[WorkspaceRecord | None, float]:
        """Who is to be claimed now, or for how long nobody is."""
        if not self._serves:
            return None, LOOK_AGAIN
        pool, now, pause = Pool(self._sites()), time.monotonic(), LOOK_AGAIN
        free_since, self._free_since = self._free_since, {}
        for record in self._waiting():
            if pool.is_closed(self._place.node):
                break
            ranking = pool.turn(Need.of(record, self._policy))
            if not ranking:
                continue
            since = self._free_since[record.name] = free_since.get(record.name, now)
            if self._place.node in ranking:
                left = since + ranking.index(self._place.node) * STEP - now
                if left <= 0:
                    return record, 0
                pause = min(pause, left)
        return None, pause

    def _claimed(self, record: WorkspaceRecord) -> WorkspaceRecord:
        # A process leaves its files wherever it ran; of a container without a volume nothing is left.
        keeps_data = record.spec.is_mount_volume or not self._policy.images_allowed
        return lifecycle.claimed(
            record,
            self._place.node,
            self._tools.clock(),
            gpu_ids=gpus.ids(record.spec.gpus, self._nodes.own.gpus),
            keeps_data=keeps_data,
        )

    async def _tell(self) -> float:
        """Say on the records what they wait for; how many seconds until there may be more to say."""
        if not (waiting := self._waiting()):
            return LOOK_AGAIN
        if (left := self._told_at + _BETWEEN_WORDS - time.monotonic()) > 0:
            return left
        self._told_at = time.monotonic()
        sites = self._sites()
        for record in waiting:
            if self._nodes.is_spokesman(record.node):
                sentence = waits_for(Need.of(record, self._policy), sites)
                if sentence != record.message:
                    await self._store.change(record.name, _saying(sentence, record))
        return LOOK_AGAIN

    def _waiting(self) -> list[WorkspaceRecord]:
        return [record for record in self._store.queued() if record.pool == self._place.pool]

    def _sites(self) -> list[Site]:
        return [Site(node, self._store.load(name), self._held(node)) for name, node in self._nodes.up().items()]

    def _held(self, node: Node) -> gpus.Holders:
        records = self._store.with_gpus(node.name) if node.gpus else []
        return gpus.holders((record.gpu_ids, shares_gpus(record.spec, self._policy)) for record in records)

    def _count(self) -> None:
        # Of the workers that share a node one counts for all, so that the sum over all is right.
        counts = self._siblings.leads
        metrics.RUNNING.set(self._store.load(self._place.node).running if counts else 0)
        metrics.QUEUED.set(len(self._waiting()) if counts else 0)


def _saying(sentence: str, of: WorkspaceRecord) -> Decide:
    def decide(record: WorkspaceRecord | None) -> WorkspaceRecord | None:
        if record is None or record.generation != of.generation:
            return record
        return lifecycle.saying(record, Phase.QUEUED, sentence)

    return decide
