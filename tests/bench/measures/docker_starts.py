"""From the wish for servers to all of them ready, on networks that exist: ours, DockerSpawner, the engine itself."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import count

from tests.bench.bench import Bench, NotAvailableError
from tests.bench.engine.contender import Contender, Seat, Turn, take_turn
from tests.bench.engine.hubs import docker_spawner, our_hub
from tests.bench.engine.lab import Lab, lab
from tests.bench.engine.raw import RawEngine, settings_like
from tests.bench.peers import docker_spawner as peer
from tests.bench.report import at_least, at_most
from tests.bench.sampling import percentile, rotate

NAME = "docker-starts"
OURS, PEER, BARE = "ours", "DockerSpawner", "bare containers"
_USERS = [f"user{number}" for number in range(4)]
_WIDTHS = {1: (1,), 5: (4, 5), 20: (4, 8, 20)}
"""How many calls of the engine are in flight at once, by how many servers are asked for."""
_QUICK = {1: 1, 5: 2, 20: 4}
"""How many it is when it only matters whether all works."""
_BARE_WIDTH = {1: 1, 5: 5, 20: 8}
_NOTE = (
    f"{NAME}: a server that is up at once, no volumes; ours and the raw engine on four users' networks that exist, "
    "DockerSpawner with all on one; the raw engine creates, starts, inspects and asks for an answer every 20 ms, for "
    "containers with the rights and limits of ours; its best width is the one with the best median; bare containers, "
    "as DockerSpawner makes them, have all rights that an engine gives and no limits"
)


async def measure(bench: Bench) -> None:
    """As many servers at once as 4 users want; the removals between are not counted."""
    servers = count()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(lab(bench))
        hubs = await _hubs(bench, one, stack)
        like_ours = await settings_like((await one.containers("mlhub.origin"))[0])
        networks = {user: str((await (await one.network(user)).show())["Name"]) for user in _USERS}
        for together, widths in _WIDTHS.items():
            amount = bench.amount(together, _QUICK[together])
            raw = {
                raw_name(width): RawEngine(one, width=width, networks=networks, settings=like_ours)
                for width in (widths if amount == together else widths[:1])
            }
            bare = RawEngine(one, width=_BARE_WIDTH[together], networks=networks, settings={}, label="bare")
            contenders: Mapping[str, Contender] = hubs | raw | {BARE: bare}
            runs = bench.amount(bench.runs, 1)
            turns = await rotate(runs, contenders, partial(take_turn, seats=partial(_seats, amount, servers)))
            _report(bench, together, amount, turns)
    bench.report.notes.append(_NOTE)


def raw_name(width: int) -> str:
    """What the raw engine is called."""
    return f"raw engine, {width} in flight"


def best_raw(turns: Mapping[str, Sequence[Turn]]) -> str:
    """The raw engine at its best width."""
    raw = [name for name in turns if name.startswith("raw")]
    return min(raw, key=lambda name: percentile([turn.last for turn in turns[name]], 0.5))


async def _hubs(bench: Bench, one: Lab, stack: AsyncExitStack) -> dict[str, Contender]:
    ours = await stack.enter_async_context(our_hub(bench, one, _USERS))
    await ours.keep([Seat(user) for user in _USERS])
    hubs: dict[str, Contender] = {OURS: ours}
    try:
        python = await peer.install(bench.artefacts / "dockerspawner")
    except NotAvailableError as error:
        bench.report.skipped[f"{NAME}, {PEER}"] = str(error)
    else:
        bench.report.machine["dockerspawner"] = peer.VERSION
        hubs[PEER] = await stack.enter_async_context(docker_spawner(bench, one, _USERS, python))
    return hubs


def _seats(amount: int, servers: "count[int]") -> list[Seat]:
    """Servers that nobody has asked for yet, spread over the users."""
    return [Seat(_USERS[number % len(_USERS)], f"s{next(servers)}") for number in range(amount)]


def _report(bench: Bench, together: int, amount: int, turns: Mapping[str, Sequence[Turn]]) -> None:
    report, lasts = bench.report, {name: [turn.last for turn in runs] for name, runs in turns.items()}
    for name, runs in turns.items():
        report.add(NAME, f"{amount} at once, last ready, {name}", "s", lasts[name])
        if amount > 1:
            report.add(NAME, f"{amount} at once, median ready, {name}", "s", [turn.median for turn in runs])
            report.add(NAME, f"{amount} at once, all removed, {name}", "s", [turn.gone for turn in runs])
    best = best_raw(turns)
    if amount == 1:
        more = [(ours - raw) * 1000 for ours, raw in zip(lasts[OURS], lasts[best], strict=True)]
        report.add(NAME, "1 at once, ours - raw engine", "ms", more, at_most(150))
        return
    goals = (at_least(0.9), at_least(1.4)) if together == max(_WIDTHS) else (None, None)
    # Servers per second: the fewer seconds, the more.
    report.versus(NAME, f"{amount} at once, rate, ours / {best}", lasts[best], lasts[OURS], goals[0])
    report.versus(NAME, f"{amount} at once, rate, ours / {BARE}", lasts[BARE], lasts[OURS])
    if PEER in lasts:
        report.versus(NAME, f"{amount} at once, rate, ours / {PEER}", lasts[PEER], lasts[OURS], goals[1])
        report.versus(NAME, f"{amount} at once, rate, {PEER} / {best}", lasts[best], lasts[PEER])
