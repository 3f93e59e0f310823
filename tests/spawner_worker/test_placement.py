"""Who goes where, and what the others wait for: the rules alone."""

import random
from typing import Any

import pytest

from mlhub_shared.contracts.policy import OptionsError
from mlhub_shared.contracts.workspace import FOR_ROOM, Phase, Wanted, WorkspaceRecord, WorkspaceSpec
from mlhub_spawner_worker.capacity import MICRO, Ledger, Load
from mlhub_spawner_worker.placement import Need, Node, Pool, Site, check_possible, waits_for
from tests.support.makers import record

GIB = 1024**3


def site(name: str = "n1", *, running: int = 0, cpu: float = 0, mem: int = 0, held: Any = None, **node: Any) -> Site:
    return Site(Node(name, **node), Load(running, round(cpu * MICRO), mem * GIB), held or {})


def need(*, cpu: float = 0, mem: int = 0, **fields: Any) -> Need:
    return Need(load=Load(1, round(cpu * MICRO), mem * GIB), **fields)


GPU: Any = {"labels": {"gpu": "a100"}}

RANKINGS: dict[str, tuple[list[Site], Need, tuple[str, ...]]] = {
    "one node": ([site()], need(), ("n1",)),
    "no limits: who has fewer": ([site("n1", running=2), site("n2", running=1)], need(), ("n2", "n1")),
    "all alike: by name": ([site("n2"), site("n1")], need(), ("n1", "n2")),
    "most free CPU": (
        [site("n1", cpu=4, cpu_total=8), site("n2", cpu=5, cpu_total=16), site("n3", cpu=1, cpu_total=2)],
        need(cpu=1),
        ("n2", "n1", "n3"),
    ),
    "what is scarcest counts": (
        [site("n1", cpu=1, mem=9, cpu_total=10, mem_total=10 * GIB), site("n2", cpu=5, cpu_total=10)],
        need(),
        ("n2", "n1"),
    ),
    "promised room counts before the machine's": (
        [site("n1", cpu=4, cpu_total=8, cpu_capacity=16), site("n2", cpu=3, cpu_total=8)],
        need(),
        ("n1", "n2"),
    ),
    "full by number": ([site("n1", running=2, capacity=2), site("n2", running=5, capacity=6)], need(), ("n2",)),
    "full by CPU": ([site("n1", cpu=3, cpu_capacity=4), site("n2", cpu=2.5, cpu_capacity=4)], need(cpu=1.5), ("n2",)),
    "just fits": ([site("n1", cpu=3.9, cpu_capacity=4)], need(cpu=0.1), ("n1",)),
    "full by memory": ([site("n1", mem=7, mem_capacity=8 * GIB)], need(mem=2), ()),
    "labels": ([site("n1"), site("n2", labels={"gpu": "a100", "zone": "b"})], need(**GPU), ("n2",)),
    "another value of a label": ([site("n1", labels={"gpu": "t4"})], need(**GPU), ()),
    "draining": ([site("n1", draining=True), site("n2")], need(), ("n2",)),
    "back to its data": ([site("n1"), site("n2", running=9)], need(node="n2"), ("n2",)),
    "its node is away": ([site("n1")], need(node="n2"), ()),
    "free GPUs": ([site("n1", gpus=("0", "1"), held={"0": False}), site("n2")], need(gpus="1"), ("n1",)),
    "a GPU in use": ([site("n1", gpus=("0", "1"), held={"0": False})], need(gpus="0"), ()),
    "all GPUs, one in use": ([site("n1", gpus=("0", "1"), held={"0": False})], need(gpus="all"), ()),
    "all GPUs of a node": ([site("n1"), site("n2", gpus=("0",))], need(gpus="all"), ("n2",)),
    "shared": ([site("n1", gpus=("0",), held={"0": True})], need(gpus="0", shares_gpus=True), ("n1",)),
}


@pytest.mark.parametrize("case", RANKINGS)
def test_the_best_node_comes_first_and_only_nodes_that_can(case: str) -> None:
    sites, asked, ranking = RANKINGS[case]
    assert Pool(sites).turn(asked) == ranking
    assert Pool(reversed(sites)).turn(asked) == ranking


LINES: dict[str, tuple[list[Site], list[Need], list[tuple[str, ...]]]] = {
    "each turn counts for the next": (
        [site("n1", cpu_total=4), site("n2", cpu_total=4)],
        [need(cpu=1), need(cpu=1), need(cpu=1)],
        [("n1", "n2"), ("n2", "n1"), ("n1", "n2")],
    ),
    "a big one at the head is not overtaken": (
        [site("n1", cpu=3, cpu_capacity=4)],
        [need(cpu=2), need(cpu=0.5), need()],
        [(), (), ()],
    ),
    "it keeps one node, and others pass on the rest": (
        [site("n1", cpu=3, cpu_capacity=4), site("n2", cpu=3.5, cpu_capacity=4)],
        [need(cpu=2), need(cpu=0.5), need(cpu=0.5)],
        [(), ("n2",), ()],
    ),
    "each of those that wait keeps its own": (
        [site("n1", running=1, capacity=1), site("n2", running=1, capacity=1), site("n3")],
        [need(node="n1"), need(node="n2"), need()],
        [(), (), ("n3",)],
    ),
    "who waits for a GPU lets others pass, but nobody who asks for that GPU": (
        [site("n1", gpus=("0", "1"), held={"0": False})],
        [need(gpus="0,1"), need(), need(gpus="1"), need()],
        [(), ("n1",), (), ("n1",)],
    ),
    "a GPU somewhere and room elsewhere: both are kept": (
        [site("n1", gpus=("0",), held={"0": False}), site("n2", running=1, capacity=1, gpus=("0",))],
        [need(gpus="0"), need(node="n2"), need(node="n1")],
        [(), (), ("n1",)],
    ),
    "room is kept where the GPU is free": (
        [
            site("n1", running=9, capacity=9, gpus=("0",), held={"0": False}),
            site("n2", running=9, capacity=9, gpus=("0",)),
        ],
        [need(gpus="0"), need(node="n1"), need(node="n2")],
        [(), (), ()],
    ),
    "who waits for a node that is away keeps nothing": (
        [site("n1", capacity=1)],
        [need(node="n2"), need(**GPU), need(cpu=1)],
        [(), (), ("n1",)],
    ),
    "who is too large for any node keeps nothing": (
        [site("n1", cpu_capacity=4)],
        [need(cpu=5), need(cpu=4)],
        [(), ("n1",)],
    ),
    "a GPU that is given is gone": (
        [site("n1", gpus=("0", "1"))],
        [need(gpus="0"), need(gpus="all"), need(gpus="1")],
        [("n1",), (), ()],
    ),
    "unless all share it": (
        [site("n1", gpus=("0",))],
        [need(gpus="0", shares_gpus=True), need(gpus="all", shares_gpus=True), need(gpus="0")],
        [("n1",), ("n1",), ()],
    ),
}


@pytest.mark.parametrize("case", LINES)
def test_the_oldest_comes_first_and_others_pass_only_for_what_he_does_not_wait_for(case: str) -> None:
    sites, line, rankings = LINES[case]
    pool = Pool(sites)
    assert [pool.turn(asked) for asked in line] == rankings


def test_nobody_waits_for_ever_while_others_pass() -> None:
    """Small ones come without end and leave after a while; the big one in between gets his turn all the same."""
    chance = random.Random(7)
    for asked in (need(cpu=4), need(cpu=3, gpus="0"), need(mem=8)):
        nodes = [Node(f"n{number}", cpu_capacity=4, mem_capacity=8 * GIB, gpus=("0",)) for number in (1, 2, 3)]
        ends: list[tuple[int, str, Need]] = [
            (chance.randint(5, 30), node.name, need(cpu=1, gpus="0" if index == 0 else None))
            for node in nodes
            for index in range(4)
        ]
        line, placed_at = [asked], None
        for now in range(200):
            ends = [end for end in ends if end[0] > now]
            sites = [_as_it_is(node, ends) for node in nodes]
            pool, left = Pool(sites), []
            for waiting in line:
                if ranking := pool.turn(waiting):
                    ends.append((now + chance.randint(5, 30), ranking[0], waiting))
                    placed_at = now if waiting is asked else placed_at
                else:
                    left.append(waiting)
            if placed_at is not None:
                break
            line = left + [need(cpu=0.5, mem=1, gpus=chance.choice([None, "0"])) for _ in range(3)]
        assert placed_at is not None
        assert placed_at <= 60


def _as_it_is(node: Node, ends: list[tuple[int, str, Need]]) -> Site:
    here = [asked for _, name, asked in ends if name == node.name]
    load = sum((asked.load for asked in here), Load())
    assert load.cpu <= 4 * MICRO
    assert load.mem <= 8 * GIB
    assert sum(asked.gpus is not None for asked in here) <= 1
    return Site(node, load, {"0": False} if any(asked.gpus for asked in here) else {})


UP = [site("n1", running=1, capacity=1), site("n2", gpus=("0", "1"), held={"0": False, "1": False})]

SENTENCES: dict[str, tuple[list[Site], Need, str]] = {
    "room": (UP[:1], need(), FOR_ROOM),
    "room where its data is": (UP, need(node="n1"), "Waiting for room on node n1, where its data is"),
    "one GPU": (UP, need(gpus="0"), "GPU 0 is in use"),
    "two GPUs": (UP, need(gpus="all"), "GPUs 0 and 1 are in use"),
    "label": (UP, need(**GPU), "No node with label gpu=a100 is up"),
    "labels": (UP, need(labels={"b": "2", "a": "1"}), "No node with labels a=1 and b=2 is up"),
    "away": (UP, need(node="n3"), "Node n3, where its data is, is away; it starts when the node is back"),
    "emptied": (
        [site("n1", draining=True)],
        need(node="n1"),
        "Node n1, where its data is, takes no workspaces now; it starts when the node does again",
    ),
    "all emptied": ([site("n1", draining=True)], need(), "No node takes workspaces now; it starts when one does again"),
    "nothing fits": (UP, need(gpus="7"), "No node that is up has what it asks for"),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_people_are_told_what_they_wait_for(case: str) -> None:
    sites, asked, sentence = SENTENCES[case]
    assert waits_for(asked, sites) == sentence


NODES = [
    Node("n1", cpu_capacity=4, mem_capacity=8 * GIB),
    Node("n2", cpu_capacity=8, mem_capacity=4 * GIB, gpus=("0", "1"), labels={"gpu": "a100"}),
]


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        (need(gpus="2"), "gpus", "no node with GPU 2 here; there are 0, 1"),
        (need(gpus="1,2"), "gpus", "no node with GPUs 1 and 2 here"),
        (need(gpus="0", node="n1"), "gpus", "there are no GPUs on node n1, where its data is"),
        (need(cpu=9), "cpu_limit", "more than 8 cores"),
        (need(cpu=5, node="n1"), "cpu_limit", "more than 4 cores"),
        (need(mem=9), "mem_limit", "more than 8 GiB"),
        (need(cpu=8, mem=8), "cpu_limit", "together"),
        (need(node="n1", **GPU), "profile", "its data is on node n1, which has no label gpu=a100"),
    ],
)
def test_what_no_node_could_ever_give_is_refused(asked: Need, field: str, words: str) -> None:
    with pytest.raises(OptionsError, match=words) as refused:
        check_possible(asked, NODES)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "asked",
    [need(), need(gpus="all"), need(gpus="0,1", cpu=8, mem=4), need(labels={"zone": "x"}), need(node="n3", gpus="7")],
    ids=["nothing", "all GPUs", "a whole node", "a node that may come", "a node that is away"],
)
def test_what_a_node_may_give_one_day_is_not_refused(asked: Need) -> None:
    check_possible(asked, NODES)


def test_gpus_that_are_counted_go_to_whom_the_backend_gives_them() -> None:
    pool = Pool([site("n1", gpus=("0",)), site("n2", gpus_counted=True)])
    for _ in range(3):
        assert pool.turn(need(gpus="count:8")) == ("n2",), "how many there are is the backend's to know"
    check_possible(need(gpus="count:8"), [Node("n1", gpus=("0",)), Node("n2", gpus_counted=True)])


@pytest.mark.parametrize(
    ("asked", "node", "words"),
    [
        ("count:1", Node("n1", gpus=("0",)), "asked for by their ids"),
        ("0", Node("n1", gpus_counted=True), "asked for by their number"),
        ("all", Node("n1", gpus_counted=True), "asked for by their number"),
        ("count:1", Node("n1"), "there are no GPUs here"),
    ],
)
def test_who_asks_for_gpus_in_another_way_than_they_are_given_is_told_so(asked: str, node: Node, words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        check_possible(need(gpus=asked), [node])


def test_the_ledger_forgets_nothing_and_nobody() -> None:
    """Whatever happens to the records, it tells what counting them all would tell."""
    chance, ledger, records = random.Random(3), Ledger(), dict[str, WorkspaceRecord]()
    for _ in range(2000):
        user, server = chance.choice("abc"), chance.choice("xyz")
        phase = chance.choice([*Phase])
        spec = WorkspaceSpec(cpu_limit=chance.choice([None, 0.1, 0.3, 2]), mem_limit=chance.choice([None, 1, 7]))
        node = chance.choice(["n1", "n2"])
        held = ("0",) if phase.takes_room and chance.random() < 0.5 else ()
        wanted = chance.choice([*Wanted])
        new = record(user, server, phase=phase, node=node, spec=spec, gpu_ids=held, wanted=wanted)
        if chance.random() < 0.2:
            records.pop(new.name, None)
            ledger.note(new.name, None)
        else:
            records[new.name] = new
            ledger.note(new.name, new)
        here = [r for r in records.values() if r.phase.takes_room and r.node == "n1"]
        assert ledger.load("n1") == sum((Load.of(r.spec) for r in here), Load())
        assert ledger.with_gpus("n1") == {r.name for r in here if r.gpu_ids}
        assert ledger.queued() == {r.name for r in records.values() if r.phase is Phase.QUEUED}
        up = [r for r in records.values() if r.phase.is_active or (r.phase.takes_room and r.wanted is Wanted.RUNNING)]
        assert ledger.wanted_up("a") == {r.name for r in up if r.workspace.user == "a"}
