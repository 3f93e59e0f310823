"""As many new users, each with a network of his own that first has to be made: ours, and the engine itself."""

from contextlib import AsyncExitStack
from functools import partial
from itertools import count

from tests.bench.bench import Bench
from tests.bench.engine.contender import Contender, Seat, take_turn
from tests.bench.engine.hubs import HubContender, NewUsers, our_hub
from tests.bench.engine.lab import Lab, lab
from tests.bench.engine.raw import RawEngineWithNetworks, Settings, settings_like
from tests.bench.measures.docker_starts import OURS, best_raw, raw_name
from tests.bench.report import at_least
from tests.bench.sampling import rotate

NAME = "docker-networks"
_WIDTHS = (4, 8, 20)
_NOTE = (
    f"{NAME}: both make a network for each user, attach two containers to it, as proxy and gateway are, and start a "
    "container with the same rights and limits; ours finds those two by their labels, and its rules for the host's "
    "firewall, made once for the whole pool, are off; a user's network outlives his last workspace by two seconds"
)


async def measure(bench: Bench) -> None:
    """20 users of whom the engine knows nothing; they are gone again before the next turn."""
    amount, users = bench.amount(20, 4), count()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(lab(bench))
        ours = await stack.enter_async_context(our_hub(bench, one, [], kind=NewUsers))
        like_ours = await _settings(one, ours)
        widths = _WIDTHS if amount >= max(_WIDTHS) else _WIDTHS[:1]
        contenders: dict[str, Contender] = {OURS: ours}
        for width in widths:
            contenders[raw_name(width)] = RawEngineWithNetworks(one, width=width, settings=like_ours)

        def seats() -> list[Seat]:
            return [Seat(f"new{next(users)}") for _ in range(amount)]

        turns = await rotate(bench.amount(bench.runs, 1), contenders, partial(take_turn, seats=seats))
    report, lasts = bench.report, {name: [turn.last for turn in runs] for name, runs in turns.items()}
    for name, runs in turns.items():
        report.add(NAME, f"{amount} new users, last ready, {name}", "s", lasts[name])
        report.add(NAME, f"{amount} new users, median ready, {name}", "s", [turn.median for turn in runs])
        report.add(NAME, f"{amount} new users, all removed, {name}", "s", [turn.gone for turn in runs])
    best, goal = best_raw(turns), at_least(0.85)
    report.versus(NAME, f"{amount} new users, rate, ours / {best}", lasts[best], lasts[OURS], goal)
    report.notes.append(_NOTE)


async def _settings(one: Lab, ours: HubContender) -> Settings:
    """Of the containers that ours makes, looked up in one that then goes."""
    first = [Seat("first")]
    await ours.prepare(first)
    await ours.up(first)
    (container,) = await one.containers("mlhub.origin")
    settings = await settings_like(container)
    await ours.down(first)
    return settings
