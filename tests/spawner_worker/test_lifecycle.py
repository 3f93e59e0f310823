"""The state machine alone: any commands and observations in any order, by the thousand."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlhub_shared.contracts.commands import Command, DeleteWorkspace, SpawnWorkspace, StopWorkspace
from mlhub_shared.contracts.workspace import Endpoint, Phase, Reason, Wanted, WorkspaceRecord, WorkspaceSpec
from mlhub_spawner_worker import lifecycle
from mlhub_spawner_worker.lifecycle import (
    Answered,
    DiedWithHost,
    Due,
    Exited,
    Failed,
    Forget,
    Gone,
    HandOn,
    Ignored,
    Observation,
    Place,
    Started,
    Write,
    due,
    observe,
    on_command,
)
from tests.support.makers import NOW, delete, record, spawn, stop

HERE = Place("default", "n1")
ENDPOINT = Endpoint(host="127.0.0.1", port=20000)
LIFETIME = timedelta(hours=1)

generations = st.integers(1, 12)
commands = st.one_of(
    st.builds(lambda g: spawn(generation=g, spec=WorkspaceSpec(lifetime=LIFETIME)), generations),
    st.builds(
        lambda g, only, reason: stop(generation=g, only_generation=only, reason=reason),
        generations,
        st.none() | generations,
        st.sampled_from([Reason.ASKED, Reason.EXPIRED, Reason.SHUTDOWN]),
    ),
    st.builds(lambda g: delete(generation=g), generations),
)
observations: st.SearchStrategy[Observation] = st.one_of(
    st.just(Started(ENDPOINT, "boot")),
    st.just(Answered()),
    st.builds(Exited, st.sampled_from([0, 1, -9, None]), st.just("tail"), st.booleans(), is_left=st.booleans()),
    st.builds(Failed, st.sampled_from(sorted(lifecycle.FAILURES)), st.just("why")),
    st.just(Gone("tail")),
    st.just(DiedWithHost()),
)
go = st.just("go")
"""The next step on the way, as it goes without trouble: without it, chance would seldom get a workspace ready."""
GOOD: dict[Due, Observation] = {Due.START: Started(ENDPOINT, "boot"), Due.PROBE: Answered(), Due.STOP: Gone()}
steps = st.lists(st.one_of(go, go, commands, observations), max_size=25)


def take(
    current: WorkspaceRecord | None, step: Command | Observation | str, *, at: datetime, sequence: int = 1
) -> WorkspaceRecord | None:
    """One step at the worker n1."""
    if isinstance(step, SpawnWorkspace | StopWorkspace | DeleteWorkspace):
        outcome = on_command(current, step, sequence=sequence, place=HERE, now=at)
        return outcome.record if isinstance(outcome, Write) else current
    if current is None:
        return None
    seen = GOOD.get(due(current, HERE.node)) if isinstance(step, str) else step
    return lifecycle.claimed(current, HERE.node, at) if seen is None else observe(current, seen, of=current, now=at)


def check(current: WorkspaceRecord) -> None:
    """What holds of every record there can be."""
    phase = current.phase
    assert (current.endpoint is not None) == (phase in {Phase.STARTING, Phase.READY})
    assert (current.reason is not None) == (phase in {Phase.STOPPING, Phase.STOPPED, Phase.FAILED})
    assert current.node is not None or not phase.takes_room
    assert phase is Phase.STOPPING or not current.erasing
    assert (phase is Phase.FAILED) == (phase is Phase.FAILED and current.reason in lifecycle.FAILURES)
    assert phase is not Phase.STOPPED or current.reason not in lifecycle.FAILURES - {Reason.EXITED}
    assert current.wanted is not Wanted.DELETED or current.erasing
    assert current.expires_at is None or phase in {Phase.READY, Phase.PREPARING, Phase.STARTING}
    assert phase is not Phase.READY or (current.ready_at is not None and current.expires_at is not None)
    assert (due(current, "n1") is Due.NOTHING) == (not phase.takes_room)


@given(steps)
@settings(max_examples=400, deadline=None)
def test_no_record_is_ever_in_disorder(sequence: list[Command | Observation | str]) -> None:
    current: WorkspaceRecord | None = None
    for index, step in enumerate(sequence):
        before = current
        current = take(current, step, at=NOW + timedelta(seconds=index), sequence=index)
        if current is None:
            continue
        check(current)
        assert before is None or current.generation >= before.generation


@given(steps, commands)
@settings(max_examples=300, deadline=None)
def test_a_command_delivered_again_changes_nothing(
    sequence: list[Command | Observation | str], command: Command
) -> None:
    current: WorkspaceRecord | None = None
    for step in [*sequence, command]:
        current = take(current, step, at=NOW)
    if current is not None and current.generation >= command.generation:
        assert isinstance(on_command(current, command, sequence=9, place=HERE, now=NOW), Ignored)


@given(steps)
@settings(max_examples=300, deadline=None)
def test_doing_what_is_due_ends_in_what_was_last_wanted(sequence: list[Command | Observation | str]) -> None:
    """A worker that does what is due, and meets no trouble, comes to rest where the last command wants it."""
    current: WorkspaceRecord | None = None
    for step in sequence:
        current = take(current, step, at=NOW)
    failing = current is not None and (current.reason in lifecycle.FAILURES)
    settled = current is not None and current.phase in {Phase.STOPPED, Phase.FAILED}
    for _ in range(6):
        if current is None or current.phase in {Phase.READY, Phase.STOPPED, Phase.FAILED}:
            break
        current = take(current, "go", at=NOW)
    if current is None or settled or failing:
        return
    assert (current.wanted, current.phase) in {
        (Wanted.RUNNING, Phase.READY),
        (Wanted.STOPPED, Phase.STOPPED),
    }


@given(steps, st.lists(st.one_of(go, commands, observations), min_size=1, max_size=4), observations)
@settings(max_examples=400, deadline=None)
def test_what_was_seen_of_an_earlier_start_changes_nothing(
    sequence: list[Command | Observation | str], since: list[Command | Observation | str], seen: Observation
) -> None:
    current: WorkspaceRecord | None = None
    for step in sequence:
        current = take(current, step, at=NOW)
    earlier = current
    for step in since:
        current = take(current, step, at=NOW)
    if earlier is None or current is None:
        return
    if (earlier.generation, earlier.phase) != (current.generation, current.phase) and Phase.STOPPING not in (
        earlier.phase,
        current.phase,
    ):
        assert observe(current, seen, of=earlier, now=NOW) == current


@given(commands, st.sampled_from(list(Phase)))
def test_another_nodes_workspace_is_handed_on_and_never_touched(command: Command, phase: Phase) -> None:
    theirs = record(phase=phase, node="n2", generation=1)
    outcome = on_command(theirs, command, sequence=1, place=HERE, now=NOW)
    assert outcome == HandOn("default", "n2") or (isinstance(outcome, Ignored) and command.generation == 1)
    assert due(theirs, "n1") is Due.NOTHING


def test_a_deletion_of_nothing_makes_sure_that_nothing_is_left() -> None:
    assert on_command(None, delete(generation=3), sequence=1, place=HERE, now=NOW) == Forget()


def test_a_spawn_during_a_deletion_comes_after_it_with_fresh_data() -> None:
    doomed = take(record(node="n1", endpoint=ENDPOINT), delete(generation=2), at=NOW)
    wanted = take(doomed, spawn(generation=3), at=NOW)
    assert wanted is not None
    assert (wanted.phase, wanted.erasing, wanted.wanted) == (Phase.STOPPING, True, Wanted.RUNNING)
    fresh = take(wanted, Gone(), at=NOW)
    assert fresh is not None
    assert (fresh.phase, fresh.erasing, fresh.generation) == (Phase.QUEUED, False, 3)
    again = take(wanted, stop(generation=4), at=NOW)
    assert again is not None
    assert again.wanted is Wanted.DELETED
    assert take(again, Gone(), at=NOW) is None


def test_a_failure_stays_one_though_the_hub_stops_what_failed() -> None:
    starting = record(phase=Phase.STARTING, node="n1", endpoint=ENDPOINT)
    failing = observe(starting, Failed(Reason.TIMEOUT, "too slow"), of=starting, now=NOW)
    stopped = take(failing, stop(generation=2), at=NOW)
    ended = take(stopped, Gone("tail"), at=NOW)
    assert ended is not None
    assert (ended.phase, ended.reason, ended.message, ended.log_tail) == (
        Phase.FAILED,
        Reason.TIMEOUT,
        "too slow",
        "tail",
    )


@pytest.mark.parametrize(
    ("ahead", "is_stopped"), [(timedelta(0), True), (timedelta(seconds=5), True), (timedelta(hours=1), False)]
)
def test_an_expiry_that_was_put_off_meanwhile_stops_nothing(ahead: timedelta, is_stopped: bool) -> None:
    running = record(node="n1", endpoint=ENDPOINT, ready_at=NOW, expires_at=NOW + ahead)
    outcome = on_command(running, stop(reason=Reason.EXPIRED), sequence=1, place=HERE, now=NOW)
    assert isinstance(outcome, Write) == is_stopped


def test_extending_brings_the_warning_back() -> None:
    running = record(node="n1", endpoint=ENDPOINT, expires_at=NOW)
    extended = lifecycle.extended(running, NOW + LIFETIME)
    assert extended.expires_at == NOW + LIFETIME


def test_what_was_running_is_restored_as_it_was_and_what_was_not_as_stopped() -> None:
    remembered = record(phase=Phase.READY, node="old", endpoint=ENDPOINT, ready_at=NOW)
    running = lifecycle.restored(remembered, node="n1", running=Started(ENDPOINT, "boot"), now=NOW)
    assert (running.phase, running.endpoint, running.node) == (Phase.READY, ENDPOINT, "n1")
    dead = lifecycle.restored(remembered, node="n1", running=None, now=NOW)
    assert (dead.phase, dead.reason, dead.endpoint) == (Phase.STOPPED, Reason.LOST, None)
