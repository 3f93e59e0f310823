"""The machines that run workspaces: what each has left, and how to empty one."""

import asyncio
from dataclasses import dataclass
from typing import Any

from jupyterhub.scopes import needs_scope
from tornado import web

from mlhub_hub.nodes import Node, NodeState, all_nodes, drain
from mlhub_hub.pages.base import PageHandler
from mlhub_hub.pages.stream import StreamHandler
from mlhub_hub.pages.view import Tone
from mlhub_hub.pages.words import size
from mlhub_hub.requester import requester_of
from mlhub_shared.contracts.services import WorkerLease, by_node
from mlhub_shared.errors import MLHubError

_WORDS = {
    NodeState.UP: ("Takes workspaces", Tone.OK, ""),
    NodeState.DRAINING: ("Drained", Tone.WAITING, "It takes no new workspaces; what runs there runs on."),
    NodeState.AWAY: ("Away", Tone.AWAY, "Its worker does not answer. Its workspaces may well be running."),
}


@dataclass(frozen=True)
class Bar:
    """How much of something is taken."""

    title: str
    taken: float
    total: float
    words: str


@dataclass(frozen=True)
class NodeRow:
    """One machine on the page."""

    node: Node
    word: str
    tone: Tone
    sentence: str
    bars: list[Bar]
    gpus: list[tuple[str, bool]]
    """Each with whether it is free."""
    can_change: bool

    @property
    def is_draining(self) -> bool:
        """Whether the button makes it take workspaces again."""
        return self.node.state is NodeState.DRAINING


def row_of_node(node: Node) -> NodeRow:
    """What the page says of a machine."""
    word, tone, sentence = _WORDS[node.state]
    if node.state is NodeState.DRAINING and node.workspaces:
        word = "Draining"
    lease = node.lease
    return NodeRow(
        node=node,
        word=word,
        tone=tone,
        sentence=sentence,
        bars=_bars(node),
        gpus=[(gpu, gpu in lease.gpus_free) for gpu in lease.gpus] if lease else [],
        can_change=lease is not None,
    )


def _bars(node: Node) -> list[Bar]:
    lease, bars = node.lease, []
    if lease is None:
        return []
    if lease.capacity is not None:
        bars.append(_bar("Places", lease.running, lease.capacity, f"{lease.running} of {lease.capacity}"))
    if cpus := lease.cpu_capacity or lease.cpu_total:
        bars.append(_bar("CPU", lease.cpu_granted, cpus, f"{lease.cpu_granted:g} of {cpus:g} cores"))
    if memory := lease.mem_capacity or lease.mem_total:
        bars.append(_bar("Memory", lease.mem_granted, memory, f"{size(lease.mem_granted)} of {size(memory)}"))
    if lease.gpus:
        taken = len(lease.gpus) - len(lease.gpus_free)
        bars.append(_bar("GPUs", taken, len(lease.gpus), f"{taken} of {len(lease.gpus)}"))
    return bars


def _bar(title: str, taken: float, total: float, words: str) -> Bar:
    return Bar(title, min(taken, total), total, words)


class _Nodes(PageHandler):
    def rows(self) -> list[NodeRow]:
        """All machines, by name."""
        context = self.context
        return [row_of_node(node) for node in all_nodes(context.workers.values(), context.workspaces.values())]


class NodesPage(_Nodes):
    """List, drain, resume."""

    @web.authenticated
    @needs_scope("admin:servers")
    async def get(self) -> None:
        """The list."""
        await self.show("nodes.html", rows=self.rows(), stream_url=self.page_url("mlhub/nodes"))

    @web.authenticated
    @needs_scope("admin:servers")
    async def post(self) -> None:
        """Have a machine take no more workspaces, or take them again."""
        name, action = self.form_value("node"), self.form_value("action")
        if action not in {"drain", "resume"}:
            raise web.HTTPError(400, "Drain or resume.")
        if self._lease(name) is None:
            raise web.HTTPError(404, "There is no such machine, or it does not answer.")
        try:
            lease = await drain(self.context.bus, name, draining=action == "drain", requester=requester_of(self))
        except MLHubError as error:
            raise web.HTTPError(503, f"{name} does not answer: {error}.") from None
        await self._until_told(name, draining=lease.draining)
        self.redirect(self.page_url("nodes"))

    def _lease(self, name: str) -> WorkerLease | None:
        return by_node(self.context.workers.values()).get(name)

    async def _until_told(self, name: str, *, draining: bool) -> None:
        """Wait, for a moment, until the list can show it."""
        for _ in range(20):
            lease = self._lease(name)
            if lease is None or lease.draining == draining:
                return
            await asyncio.sleep(0.05)


class NodesEvents(_Nodes, StreamHandler):
    """The list, as HTML, whenever it changes."""

    @web.authenticated
    @needs_scope("admin:servers")
    async def get(self) -> None:
        """Follow the machines."""
        sent = ""

        async def look() -> dict[str, Any] | None:
            nonlocal sent
            before, sent = sent, await self.render_template("_nodes.html", rows=self.rows())
            return None if before == sent else {"html": sent}

        with self.context.workers.changes() as changes:
            watching = asyncio.ensure_future(self.wake_on(changes, bool))
            try:
                await self.stream(look)
            finally:
                watching.cancel()
