"""Kill -9 of everything, during spawns, stops and deletes.

A seed that failed is replayed by its name: pytest "tests/system/test_chaos.py::test_chaos[seed-7]".
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Phase, Wanted
from tests.support.stack import COMPONENTS, FAKE_SERVER, HUB, Stack, running_stack, wait_until, workspace_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(420)]

USERS, SERVERS = 3, ("", "gpu1")
STEPS = 14
SETTLED_WITHIN = 90.0
"""Seconds after the last part has come back."""


@dataclass(frozen=True)
class Step:
    """Something asked of one workspace, and what is killed about that time."""

    user: str
    server: str
    wanted: Wanted
    victim: str | None
    delay: float
    """Seconds from the request to the kill."""

    @property
    def workspace(self) -> WorkspaceId:
        return WorkspaceId(hub=HUB, user=self.user, server=self.server)

    def __str__(self) -> str:
        killed = f", kill {self.victim} after {self.delay:.2f} s" if self.victim else ""
        return f"{self.workspace.name}: {self.wanted}{killed}"


def plan(seed: int) -> list[Step]:
    """What this seed does; each part dies at least once."""
    chance = random.Random(seed)
    victims: list[str | None] = [
        *COMPONENTS,
        *(chance.choice([None, *COMPONENTS]) for _ in range(STEPS - len(COMPONENTS))),
    ]
    chance.shuffle(victims)
    steps: list[Step] = []
    state: dict[tuple[str, str], Wanted] = {}
    for victim in victims:
        place = (f"u{seed}x{chance.randrange(USERS)}", chance.choice(SERVERS))
        wanted = chance.choice(possible(state.get(place), place[1]))
        state[place] = wanted
        steps.append(
            Step(*place, wanted, victim, chance.choice([0.0, chance.uniform(0, 0.3), chance.uniform(0.3, 2.0)]))
        )
    return steps


def possible(state: Wanted | None, server: str) -> list[Wanted]:
    """What makes sense to ask next; the default workspace of a user is never deleted alone."""
    if state in {None, Wanted.STOPPED, Wanted.DELETED}:
        return [Wanted.RUNNING]
    return [Wanted.STOPPED, Wanted.DELETED] if server else [Wanted.STOPPED]


@pytest.fixture(scope="module")
def chaos_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("chaos"), MLHUB_SPAWNER_WORKER_COMMAND=FAKE_SERVER) as stack:
        yield stack


def test_chaos(chaos_stack: Stack, seed: int) -> None:
    stack, steps = chaos_stack, plan(seed)
    print("\n".join(map(str, steps)))
    for user in {step.user for step in steps}:
        stack.hub.add_user(user)
    asked: dict[WorkspaceId, Wanted] = {}
    for step in steps:
        with killing(stack, step):
            ask(stack, step)
        asked[step.workspace] = step.wanted
    stack.wait_well(within=60)
    settled(stack, asked)
    check_processes(stack, asked)
    check_directories(stack, asked)
    check_routes(stack, asked)
    for workspace in asked:
        if asked[workspace] is Wanted.RUNNING:
            stack.hub.stop(workspace.user, workspace.server)
    wait_until(lambda: not stack.workspace_processes(), within=30)


@contextmanager
def killing(stack: Stack, step: Step) -> Iterator[None]:
    """Kill the victim while what is inside goes on."""
    timer = threading.Timer(step.delay, stack.kill, [step.victim]) if step.victim else None
    if timer:
        timer.start()
    yield
    if timer:
        timer.join()


def ask(stack: Stack, step: Step) -> None:
    """Ask until the wish is on the bus: whoever gets no answer asks again."""
    request = {Wanted.RUNNING: stack.hub.spawn, Wanted.STOPPED: stack.hub.stop, Wanted.DELETED: stack.hub.delete}

    def is_asked() -> bool:
        request[step.wanted](step.user, step.server)
        return wish(stack, step.workspace) is step.wanted

    wait_until(is_asked, within=60, every=0.3)


def wish(stack: Stack, workspace: WorkspaceId) -> Wanted:
    """What was last asked of a workspace, by the bus; nothing left of it counts as deleted."""

    async def look(bus: Bus) -> Wanted:
        entry = await bus.workspaces.get(workspace.name)
        record = entry.value if entry else None
        found = await bus.last_command("default", workspace.name, record.node if record else None)
        wishes = [wish for wish in (record, found[0] if found else None) if wish]
        return max(wishes, key=lambda wish: wish.generation).wanted if wishes else Wanted.DELETED

    for _ in range(5):
        try:
            return stack.bus.ask(look)
        except TimeoutError:
            continue
    raise TimeoutError("the bus does not come back")


def settled(stack: Stack, asked: dict[WorkspaceId, Wanted]) -> None:
    """Wait until hub and records say of every workspace what was last asked of it."""
    wait_until(partial(_is_settled, stack, asked), within=SETTLED_WITHIN, every=0.5)


def _is_settled(stack: Stack, asked: dict[WorkspaceId, Wanted]) -> bool:
    phases = {name: record.phase for name, record in stack.bus.records().items()}
    right = {Wanted.RUNNING: Phase.READY, Wanted.STOPPED: Phase.STOPPED, Wanted.DELETED: None}
    for workspace, wanted in asked.items():
        looks = stack.hub.is_ready if wanted is Wanted.RUNNING else stack.hub.is_gone
        if phases.get(workspace.name) is not right[wanted] or not looks(workspace.user, workspace.server):
            print(f"not yet: {workspace.name} {wanted} {phases.get(workspace.name)}")
            return False
    return True


def check_processes(stack: Stack, asked: dict[WorkspaceId, Wanted]) -> None:
    """One process for each workspace that is wanted, none for any other."""
    running = sorted(workspace_of(process) or "?" for process in stack.workspace_processes())
    assert running == sorted(workspace.name for workspace, wanted in asked.items() if wanted is Wanted.RUNNING)


def check_directories(stack: Stack, asked: dict[WorkspaceId, Wanted]) -> None:
    """The files of every workspace that was not deleted, and no others."""
    worker = stack.data.of("spawner-worker")
    folders = {folder.name for folder in (worker / "workspaces").iterdir()}
    users = {workspace.user for workspace in asked}
    of_this_seed = {folder for folder in folders if any(f"-{user}-" in folder for user in users)}
    kept = {workspace.name for workspace, wanted in asked.items() if wanted is not Wanted.DELETED}
    assert of_this_seed == kept
    assert not list((worker / "trash").iterdir())


def check_routes(stack: Stack, asked: dict[WorkspaceId, Wanted]) -> None:
    """Who is up answers at his address, himself; of the others nobody does."""
    for workspace, wanted in asked.items():
        answer = stack.hub.workspace("GET", workspace.user, "api", workspace.server)
        pids = [str(process.pid) for process in stack.workspace_processes(workspace.name)]
        assert (answer.status_code == 200) is (wanted is Wanted.RUNNING)
        assert wanted is not Wanted.RUNNING or [answer.text] == pids
