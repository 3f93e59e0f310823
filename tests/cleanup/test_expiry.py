"""Decisions about the end of a workspace."""

from datetime import timedelta

import pytest

from mlhub_cleanup.expiry import Action, Change, derived_id, due, plan, stop_command
from mlhub_shared.contracts.timers import Purpose, Timer
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from tests.support.makers import NOW, record

WARN_BEFORE = timedelta(minutes=15)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def ends_in(
    left: timedelta, *, phase: Phase = Phase.READY, life: timedelta = DAY, generation: int = 7
) -> WorkspaceRecord:
    return record(phase=phase, generation=generation, expires_at=NOW + left, ready_at=NOW + left - life)


def timer_of(value: WorkspaceRecord, purpose: Purpose) -> Timer:
    assert value.expires_at is not None
    return Timer(
        requester="x",
        workspace=value.workspace,
        generation=value.generation,
        purpose=purpose,
        expires_at=value.expires_at,
    )


def armed(change: Change) -> dict[Purpose, timedelta]:
    assert all(timer.purpose in Purpose for _, timer in change.arm)
    return {timer.purpose: when - NOW for when, timer in change.arm}


def test_a_day_is_warned_about_before_and_stopped_at_its_end() -> None:
    change = plan(ends_in(HOUR), {}, NOW, WARN_BEFORE)
    assert armed(change) == {Purpose.WARN: HOUR - WARN_BEFORE, Purpose.EXPIRE: HOUR}


def test_a_life_shorter_than_the_warning_is_warned_about_in_its_last_quarter() -> None:
    minute = timedelta(minutes=1)
    change = plan(ends_in(minute, life=minute), {}, NOW, WARN_BEFORE)
    assert armed(change) == {Purpose.WARN: minute * 3 / 4, Purpose.EXPIRE: minute}


def test_the_end_is_armed_also_when_it_is_over_but_no_warning_any_more() -> None:
    assert armed(plan(ends_in(-HOUR), {}, NOW, WARN_BEFORE)) == {Purpose.EXPIRE: -HOUR}


def test_what_is_armed_right_is_left_alone() -> None:
    value = ends_in(HOUR)
    timers = {purpose: timer_of(value, purpose) for purpose in Purpose}
    assert plan(value, timers, NOW, WARN_BEFORE) == Change()


@pytest.mark.parametrize("before", [ends_in(HOUR / 2), ends_in(HOUR, generation=6)], ids=["extended", "started again"])
def test_what_is_armed_for_another_end_is_moved(before: WorkspaceRecord) -> None:
    timers = {purpose: timer_of(before, purpose) for purpose in Purpose}
    assert set(armed(plan(ends_in(HOUR), timers, NOW, WARN_BEFORE))) == set(Purpose)


def test_timers_of_an_earlier_life_of_the_service_are_armed_anew_but_never_lose_a_warning() -> None:
    unknown = dict.fromkeys(Purpose)
    assert set(armed(plan(ends_in(HOUR), unknown, NOW, WARN_BEFORE))) == set(Purpose)
    late = plan(ends_in(WARN_BEFORE / 2), unknown, NOW, WARN_BEFORE)
    assert set(armed(late)) == {Purpose.EXPIRE}
    assert late.cancel == ()


@pytest.mark.parametrize(
    "value",
    [None, record(expires_at=None), *(ends_in(HOUR, phase=p) for p in Phase if not p.is_active)],
    ids=lambda value: "none" if value is None else value.phase,
)
def test_a_workspace_without_an_end_keeps_no_timer(value: WorkspaceRecord | None) -> None:
    assert plan(value, dict.fromkeys(Purpose), NOW, WARN_BEFORE) == Change(cancel=tuple(Purpose))
    assert plan(value, {}, NOW, WARN_BEFORE) == Change()


@pytest.mark.parametrize(
    ("value", "purpose", "action"),
    [
        (ends_in(HOUR), Purpose.EXPIRE, Action.STOP),
        (ends_in(HOUR), Purpose.WARN, Action.WARN),
        (ends_in(HOUR, phase=Phase.STOPPED), Purpose.EXPIRE, Action.NOTHING),
        (ends_in(HOUR, phase=Phase.STOPPING), Purpose.EXPIRE, Action.NOTHING),
        (ends_in(2 * HOUR), Purpose.EXPIRE, Action.NOTHING),
        (ends_in(2 * HOUR), Purpose.WARN, Action.NOTHING),
        (ends_in(HOUR, generation=8), Purpose.EXPIRE, Action.NOTHING),
        (record(generation=7), Purpose.EXPIRE, Action.NOTHING),
        (None, Purpose.EXPIRE, Action.NOTHING),
    ],
)
def test_only_a_timer_that_still_matches_does_something(
    value: WorkspaceRecord | None, purpose: Purpose, action: Action
) -> None:
    assert due(timer_of(ends_in(HOUR), purpose), value, NOW) is action


def test_a_warning_that_comes_after_the_end_is_none() -> None:
    value = ends_in(HOUR)
    assert due(timer_of(value, Purpose.WARN), value, NOW + HOUR) is Action.NOTHING


def test_the_stop_at_an_end_is_one_command_and_loses_against_what_came_after() -> None:
    value = ends_in(HOUR, generation=7)
    first, again = (stop_command(value, NOW + HOUR) for _ in range(2))
    assert (first.id, first.generation) == (again.id, again.generation)
    assert first.only_generation == 7
    asked_later = int((NOW + HOUR).timestamp() * 1_000_000) + 1
    assert 7 < first.generation < asked_later
    assert stop_command(value, NOW + HOUR).id != stop_command(value, NOW + 2 * HOUR).id


def test_derived_ids_do_not_run_into_each_other() -> None:
    assert derived_id("a", "b") == derived_id("a", "b")
    assert len({derived_id("a", "b"), derived_id("ab"), derived_id("b", "a"), derived_id("a", "b", "")}) == 4
