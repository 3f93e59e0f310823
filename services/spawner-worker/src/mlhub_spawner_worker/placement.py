"""Which node takes whom, and what the others wait for. Pure; every worker of a pool comes to the same result.

The oldest in line has the first turn. It goes to the node that can take it and has the most left, and if none can, it
waits, and what it waits for is kept for it: the GPUs it asked for wherever they are, and room on one node, that with
the least to go. Whoever comes later gets nothing of that, but passes where he asks for something else: another node
by its labels or its data, other GPUs. Room that is kept only grows, so nobody waits for ever while others pass.
What no node that is up could ever give keeps nothing from anybody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mlhub_shared.contracts.policy import OptionsError, Policy, Profile
from mlhub_shared.contracts.services import WorkerLease
from mlhub_shared.contracts.workspace import FOR_ROOM, WorkspaceRecord, WorkspaceSpec
from mlhub_spawner_worker import gpus
from mlhub_spawner_worker.capacity import MICRO, Load

_GIB = 1024**3


@dataclass(frozen=True)
class Node:
    """What a node has, whoever uses it."""

    name: str
    capacity: int | None = None
    """Workspaces at once. None: no limit."""
    cpu_total: float | None = None
    mem_total: int | None = None
    cpu_capacity: float | None = None
    """Cores that may be promised. None: no limit."""
    mem_capacity: int | None = None
    """Bytes, likewise."""
    gpus: tuple[str, ...] = ()
    gpus_counted: bool = False
    """It has GPUs by their number, however many."""
    labels: Mapping[str, str] = field(default_factory=dict)
    draining: bool = False

    @classmethod
    def of(cls, lease: WorkerLease) -> "Node":
        """The node of a worker that lives."""
        return cls(
            name=lease.node,
            capacity=lease.capacity,
            cpu_total=lease.cpu_total,
            mem_total=lease.mem_total,
            cpu_capacity=lease.cpu_capacity,
            mem_capacity=lease.mem_capacity,
            gpus=lease.gpus,
            gpus_counted=lease.gpus_counted,
            labels=lease.labels,
            draining=lease.draining,
        )


@dataclass(frozen=True)
class Site:
    """A node that is up, and what of it is promised."""

    node: Node
    load: Load = field(default_factory=Load)
    held: gpus.Holders = field(default_factory=dict)


@dataclass(frozen=True)
class Need:
    """What a workspace in line asks for."""

    node: str | None = None
    """Where its data are. None: it may go anywhere."""
    load: Load = field(default_factory=lambda: Load(1))
    gpus: str | None = None
    shares_gpus: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, record: WorkspaceRecord, policy: Policy) -> "Need":
        """What a record asks for under this policy."""
        profile = profile_of(record.spec, policy)
        return cls(
            node=record.node,
            load=Load.of(record.spec),
            gpus=record.spec.gpus,
            shares_gpus=shares_gpus(record.spec, policy),
            labels=profile.node_labels if profile else {},
        )


def profile_of(spec: WorkspaceSpec, policy: Policy) -> Profile | None:
    """The profile of a workspace; None if it has none, or one that is not offered any more."""
    try:
        return policy.profile(spec.profile)
    except OptionsError:
        return None


def shares_gpus(spec: WorkspaceSpec, policy: Policy) -> bool:
    """Whether this workspace may have GPUs together with others."""
    profile = profile_of(spec, policy)
    return profile is not None and profile.gpus_shared


class Pool:
    """The nodes of a pool that are up, while those in line have their turns, the oldest first."""

    def __init__(self, sites: Iterable[Site]) -> None:
        self._offers = {site.node.name: _Offer(site) for site in sites}

    def turn(self, need: Need) -> tuple[str, ...]:
        """The nodes that can take it now, the best first; none: it waits, and what it waits for is kept for it."""
        possible = [offer for offer in self._offers.values() if could_take(offer.node, need)]
        able = sorted((offer for offer in possible if offer.can_take(need)), key=_Offer.rank)
        if able:
            able[0].take(need)
        else:
            _keep(need, possible)
        return tuple(offer.node.name for offer in able)

    def is_closed(self, node: str) -> bool:
        """Whether nobody who is still to have his turn can go to this node."""
        offer = self._offers.get(node)
        return offer is None or offer.is_closed


def could_take(node: Node, need: Need) -> bool:
    """Whether a node would take it if nobody else were there."""
    return (
        not node.draining
        and need.node in (None, node.name)
        and need.labels.items() <= node.labels.items()
        and _has_gpus(node, need)
        and _is_large_enough(node, need.load)
    )


def waits_for(need: Need, sites: Iterable[Site]) -> str:
    """What somebody in line waits for, in a sentence for people."""
    there = {site.node.name: site for site in sites}
    if need.node is not None:
        if need.node not in there:
            return f"Node {need.node}, where its data is, is away; it starts when the node is back"
        if there[need.node].node.draining:
            return f"Node {need.node}, where its data is, takes no workspaces now; it starts when the node does again"
    labelled = [site for site in there.values() if need.labels.items() <= site.node.labels.items()]
    if not labelled:
        return f"No node with {_labels_in_words(need.labels)} is up"
    if all(site.node.draining for site in labelled):
        return "No node takes workspaces now; it starts when one does again"
    possible = [site for site in labelled if could_take(site.node, need)]
    if not possible:
        return "No node that is up has what it asks for"
    roomy = [site for site in possible if _lack(site.node, site.load + need.load) <= 0]
    lacking = [_missing_gpus(need, site.node, site.held) for site in roomy]
    if lacking and all(lacking):
        taken = min(lacking, key=len)
        return f"{gpus.in_words(taken)} {'are' if len(taken) > 1 else 'is'} in use"
    if need.node is not None and len(there) > 1:
        return f"{FOR_ROOM} on node {need.node}, where its data is"
    return FOR_ROOM


def check_possible(need: Need, nodes: Iterable[Node]) -> None:
    """OptionsError if none of the nodes could ever take it; where none has its labels, one that has may come."""
    known = [node for node in nodes if need.node in (None, node.name)]
    labelled = [node for node in known if need.labels.items() <= node.labels.items()]
    if not labelled:
        if need.node is not None and known:
            words = _labels_in_words(need.labels)
            raise OptionsError("profile", f"its data is on node {need.node}, which has no {words}")
        return
    with_gpus = [node for node in labelled if _has_gpus(node, need)]
    if not with_gpus:
        raise OptionsError("gpus", _no_such_gpus(need, labelled))
    if not any(_is_large_enough(node, need.load) for node in with_gpus):
        raise _too_large(need.load, with_gpus)


class _Offer:
    """What a node still has."""

    def __init__(self, site: Site) -> None:
        self.node, self.load = site.node, site.load
        self._held = dict(site.held)
        self._kept_gpus: set[str] = set()
        self.is_kept = False

    @property
    def is_closed(self) -> bool:
        return self.is_kept or self.node.draining or self.lack(Load(1)) > 0

    def rank(self) -> tuple[float, int, str]:
        shares = [used / total for used, total in self._used() if total]
        return max(shares, default=0.0), self.load.running, self.node.name

    def lack(self, load: Load) -> float:
        """How much of its room it has too little of for that; not above 0: it has enough."""
        return _lack(self.node, self.load + load)

    def missing_gpus(self, need: Need) -> tuple[str, ...]:
        return _missing_gpus(need, self.node, self._held)

    def can_take(self, need: Need) -> bool:
        kept = self._kept_gpus & set(gpus.ids(need.gpus, self.node.gpus))
        return not (self.is_kept or kept or self.missing_gpus(need) or self.lack(need.load) > 0)

    def take(self, need: Need) -> None:
        self.load += need.load
        for gpu in gpus.ids(need.gpus, self.node.gpus):
            self._held[gpu] = self._held.get(gpu, True) and need.shares_gpus

    def keep_gpus(self, need: Need) -> None:
        self._kept_gpus |= set(gpus.ids(need.gpus, self.node.gpus))

    def _used(self) -> list[tuple[float, float | None]]:
        node = self.node
        return [
            (self.load.cpu / MICRO, node.cpu_capacity or node.cpu_total),
            (self.load.mem, node.mem_capacity or node.mem_total),
        ]


def _keep(need: Need, possible: list[_Offer]) -> None:
    lacking_gpus = [offer for offer in possible if offer.missing_gpus(need)]
    for offer in lacking_gpus:
        offer.keep_gpus(need)
    full = [offer for offer in possible if offer.lack(need.load) > 0 and not offer.is_kept]
    if not any(offer not in lacking_gpus for offer in full) and any(offer not in full for offer in lacking_gpus):
        return  # It is GPUs that it waits for, somewhere where there is room.
    if full:
        best = min(full, key=lambda offer: (offer in lacking_gpus, offer.lack(need.load), offer.node.name))
        best.is_kept = True


def _lack(node: Node, load: Load) -> float:
    limits = (
        (load.running, node.capacity),
        (load.cpu, None if node.cpu_capacity is None else node.cpu_capacity * MICRO),
        (load.mem, node.mem_capacity),
    )
    return max(((used - most) / most for used, most in limits if most is not None), default=-1.0)


def _is_large_enough(node: Node, load: Load) -> bool:
    return _lack(node, load) <= 0


def _has_gpus(node: Node, need: Need) -> bool:
    return gpus.is_there(need.gpus, node.gpus, are_counted=node.gpus_counted)


def _missing_gpus(need: Need, node: Node, held: gpus.Holders) -> tuple[str, ...]:
    return gpus.missing(gpus.ids(need.gpus, node.gpus), held, is_shared=need.shares_gpus)


def _labels_in_words(labels: Mapping[str, str]) -> str:
    pairs = [f"{key}={value}" for key, value in sorted(labels.items())]
    return f"label{'s' if len(pairs) > 1 else ''} {' and '.join(pairs)}"


def _no_such_gpus(need: Need, nodes: list[Node]) -> str:
    there = sorted({gpu for node in nodes for gpu in node.gpus})
    where = "here" if need.node is None else f"on node {need.node}, where its data is"
    if not there and not any(node.gpus_counted for node in nodes):
        return f"there are no GPUs {where}"
    if not there or not (wanted := gpus.ids(need.gpus, ())):
        return f"GPUs {where} are asked for by their {'ids' if there else 'number'}"
    return f"there is no node with {gpus.in_words(wanted)} {where}; there are {', '.join(there)}"


def _too_large(load: Load, nodes: list[Node]) -> OptionsError:
    cpu, mem = [node.cpu_capacity for node in nodes], [node.mem_capacity for node in nodes]
    most_cpu = max((most for most in cpu if most is not None), default=0.0)
    most_mem = max((most for most in mem if most is not None), default=0)
    if None not in cpu and load.cpu > most_cpu * MICRO:
        return OptionsError("cpu_limit", f"no node takes a workspace of more than {most_cpu:g} cores")
    if None not in mem and load.mem > most_mem:
        return OptionsError("mem_limit", f"no node takes a workspace of more than {most_mem / _GIB:.3g} GiB")
    return OptionsError("cpu_limit", "no node has that many cores together with that much memory")
