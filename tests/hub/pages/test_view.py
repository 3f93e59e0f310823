"""What the home page says of a workspace."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlhub_hub.pages.dialogs import Files, files_of
from mlhub_hub.pages.rights import Rights, rights_for
from mlhub_hub.pages.view import Row, Server, Tone, actions, extended, granted, links_of, row_of, status_of
from mlhub_hub.pages.words import amount, duration, ordinal, size
from mlhub_hub.settings import Workspaces
from mlhub_shared.contracts.options import validate
from mlhub_shared.contracts.policy import Policy, Profile
from mlhub_shared.contracts.workspace import Phase, Reason, WorkspaceRecord, WorkspaceSpec
from tests.support.makers import record

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVERYTHING = rights_for(Workspaces.SELF_SERVICE, is_admin=False)
TWO_DAYS = WorkspaceSpec(lifetime=timedelta(days=2))


def row(
    known: WorkspaceRecord | None, server: Server | None = None, *, rights: Rights = EVERYTHING, **fields: Any
) -> Row:
    server = server or Server("alice", "gpu1")
    links = links_of(server, hub_url="/hub/", base_url="/")
    policy = fields.pop("policy", Policy())
    return row_of(known, server, key="key", links=links, rights=rights, policy=policy, now=NOW, **fields)


@pytest.mark.parametrize(
    ("phase", "fields", "word", "tone"),
    [
        (Phase.QUEUED, {}, "Queued, 3rd", Tone.WAITING),
        (Phase.PREPARING, {"progress": 20}, "Preparing 20 %", Tone.BUSY),
        (Phase.STARTING, {"progress": 60}, "Starting 60 %", Tone.BUSY),
        (Phase.READY, {}, "Ready", Tone.OK),
        (Phase.STOPPING, {"progress": 60}, "Stopping", Tone.BUSY),
        (Phase.STOPPED, {}, "Stopped", Tone.OFF),
        (Phase.FAILED, {}, "Failed", Tone.BAD),
    ],
)
def test_each_phase_has_a_word_and_a_look(phase: Phase, fields: dict[str, Any], word: str, tone: Tone) -> None:
    status = status_of(record(phase=phase, **fields), Server("alice"), position=3)
    assert (status.word, status.tone) == (word, tone)


def test_what_ails_a_workspace_that_runs_is_said_beside_it() -> None:
    shown = row(record(phase=Phase.READY, message="Node a does not answer"))
    assert (shown.status.word, shown.status.sentence) == ("Ready", "Node a does not answer")
    assert "open" in shown.can


def test_every_reason_but_a_wish_is_explained() -> None:
    for reason in Reason:
        sentence = status_of(record(phase=Phase.STOPPED, reason=reason), Server("alice")).sentence
        assert bool(sentence) is (reason is not Reason.ASKED), reason


def test_a_failure_says_what_the_worker_said_and_shows_the_log() -> None:
    failed = record(phase=Phase.FAILED, reason=Reason.EXITED, message="Exit code 1.", log_tail="Traceback\nBoom")
    shown = row(failed)
    assert (shown.status.sentence, shown.log_tail) == ("Exit code 1.", "Traceback\nBoom")
    assert shown.can == {"retry", "options", "delete"}


def test_a_start_that_no_worker_has_seen_yet_does_not_show_the_last_run() -> None:
    old = record(phase=Phase.FAILED, message="Exit code 1.", log_tail="Boom", expires_at=NOW)
    shown = row(old, Server("alice", "gpu1", pending="spawn"))
    assert shown.status.word == "Requested"
    assert not shown.log_tail
    assert shown.expires_at is None
    assert shown.can == {"watch", "cancel"}


def test_a_start_that_never_reached_a_worker_says_why() -> None:
    server = Server("alice", "gpu1", was_started=True, failure="The hub can't reach its message bus.")
    for known in (None, record(phase=Phase.STOPPED, reason=Reason.EXPIRED)):
        shown = row(known, server)
        assert (shown.status.word, shown.status.sentence) == ("Failed", server.failure)
        assert "retry" in shown.can
    assert row(record(phase=Phase.FAILED, message="Exit code 1."), server).status.sentence == "Exit code 1."


def test_a_workspace_on_a_machine_that_is_away_is_neither_ready_nor_dead() -> None:
    ready = record(phase=Phase.READY, node="n1")
    shown = row(ready, is_unreachable=True)
    assert (shown.status.word, shown.status.tone) == ("Unreachable", Tone.AWAY)
    assert "n1 does not answer" in shown.status.sentence
    assert shown.can == {"stop", "delete"}
    assert not row(ready, Server("alice"), is_unreachable=True).can & {"open", "start"}


def test_what_differs_from_the_profile_is_said() -> None:
    usual = Profile(name="small", display_name="Small", image="img:1", default_cpu=1, default_mem=2)
    policy = Policy(profiles=(usual,), images=("*",), images_allowed=True)
    spec = validate({"cpu_limit": 2, "image": "img:2", "shm_size": "1G", "is_mount_volume": False}, policy)
    shown = row(record(phase=Phase.READY, spec=spec), policy=policy)
    assert (shown.profile, shown.image) == ("Small", "img:2")
    assert shown.differences == (
        "img:2 instead of img:1",
        "2 cores instead of 1",
        "1 GiB shared memory",
        "no persistent volume",
    )
    assert row(record(spec=validate({}, policy)), policy=policy).differences == ()
    assert row(record(spec=WorkspaceSpec(cpu_limit=2))).differences == (), "there is nothing to differ from"


def test_a_workspace_with_an_image_can_be_updated() -> None:
    policy = Policy(profiles=(Profile(name="small", image="img:1"),), images_allowed=True)
    for phase, offered in ((Phase.READY, True), (Phase.STOPPED, True), (Phase.FAILED, True), (Phase.STARTING, False)):
        assert ("update" in row(record(phase=phase), policy=policy).can) is offered, phase
    assert "update" not in row(record(phase=Phase.READY)).can


def test_a_stopped_one_shows_what_its_next_start_gives() -> None:
    stopped, running = (record(phase=phase, spec=WorkspaceSpec(cpu_limit=1)) for phase in (Phase.STOPPED, Phase.READY))
    changed = WorkspaceSpec(cpu_limit=3)
    assert row(stopped, spec=changed).granted == ("3 cores",)
    assert row(running, spec=changed).granted == ("1 core",)


@pytest.mark.parametrize(
    ("known", "next_has_volume", "files"),
    [
        ({"has_data": True}, True, Files.KEPT),
        # It had a volume once; the last start was without it.
        ({"has_data": True, "spec": WorkspaceSpec(is_mount_volume=False)}, False, Files.KEPT),
        # The volume was switched on, or its start failed, before there was one.
        ({"has_data": False}, True, Files.NONE),
        ({"has_data": False, "phase": Phase.QUEUED}, True, Files.KEPT),
        ({"has_data": False, "phase": Phase.READY, "spec": WorkspaceSpec(is_mount_volume=False)}, True, Files.NONE),
        (None, True, Files.KEPT),
        (None, False, Files.NONE),
        # Nobody can say what it was started with.
        (None, None, Files.KEPT),
    ],
)
def test_what_a_deletion_does_to_the_files(
    known: dict[str, Any] | None, next_has_volume: bool | None, files: Files
) -> None:
    before = record(**({"phase": Phase.STOPPED} | known)) if known is not None else None
    to_come = None if next_has_volume is None else WorkspaceSpec(is_mount_volume=next_has_volume)
    assert files_of(before, to_come, Policy(images_allowed=True, keep_volumes_days=7)) is files
    gone = Files.GONE if files is Files.KEPT else files
    assert files_of(before, to_come, Policy(images_allowed=True)) is gone
    assert files_of(before, to_come, Policy(keep_volumes_days=7)) is Files.GONE


def test_what_is_being_stopped_offers_nothing() -> None:
    shown = row(record(phase=Phase.READY), Server("alice", "gpu1", pending="stop"))
    assert (shown.status.word, shown.can) == ("Stopping", frozenset())


def test_a_ready_one_can_be_opened_stopped_and_deleted() -> None:
    assert row(record(phase=Phase.READY)).can == {"open", "stop", "delete"}
    assert row(record(phase=Phase.READY), Server("alice")).can == {"open", "stop", "delete"}
    assert "delete" not in row(None, Server("alice")).can, "of the default one there is nothing yet"


def test_users_of_handed_out_workspaces_start_and_stop_but_change_nothing() -> None:
    user = rights_for(Workspaces.HANDED_OUT, is_admin=False)
    stopped = record(phase=Phase.STOPPED)
    assert row(stopped, rights=user).can == {"start"}
    assert row(record(phase=Phase.READY), rights=user).can == {"open", "stop"}
    never = Server("alice")
    assert actions(None, never, status_of(None, never), user) == frozenset()
    admin = rights_for(Workspaces.HANDED_OUT, is_admin=True)
    assert row(stopped, rights=admin).can == {"start", "options", "delete"}


@pytest.mark.parametrize(
    ("mode", "is_admin", "create"),
    [
        (Workspaces.SELF_SERVICE, False, True),
        (Workspaces.ONE_EACH, False, False),
        (Workspaces.HANDED_OUT, False, False),
        (Workspaces.ONE_EACH, True, True),
        (Workspaces.HANDED_OUT, True, True),
    ],
)
def test_who_makes_workspaces(mode: Workspaces, is_admin: bool, create: bool) -> None:
    assert rights_for(mode, is_admin=is_admin).create is create


def test_extending_adds_the_original_lifetime_within_the_policy() -> None:
    ready = record(phase=Phase.READY, spec=TWO_DAYS, expires_at=NOW + timedelta(hours=1))
    assert extended(ready, Policy(), NOW) == NOW + timedelta(days=2, hours=1)
    assert extended(ready, Policy(max_days_to_live=2), NOW) == NOW + timedelta(days=2)
    assert row(ready).extend_by == "2 d"
    assert row(ready, policy=Policy(max_days_to_live=2)).extend_by == "1 d 23 h"


def test_there_is_no_dead_extend_button() -> None:
    fresh = record(phase=Phase.READY, spec=TWO_DAYS, expires_at=NOW + timedelta(days=2))
    assert extended(fresh, Policy(max_days_to_live=2), NOW) is None
    assert extended(record(phase=Phase.READY), Policy(), NOW) is None
    stopped = record(phase=Phase.STOPPED, spec=TWO_DAYS, expires_at=NOW + timedelta(hours=1))
    assert extended(stopped, Policy(), NOW) is None


def test_the_end_of_life_is_said_and_amber_when_it_is_near() -> None:
    soon = NOW + timedelta(minutes=10)
    warned = row(record(phase=Phase.READY, spec=TWO_DAYS, expires_at=soon))
    assert (warned.expires_at, warned.is_expiring, warned.life) == (soon, True, "")
    assert row(record(phase=Phase.READY)).life == "no end"
    assert row(record(phase=Phase.STARTING, spec=TWO_DAYS)).life == "2 d once ready"
    assert not row(record(phase=Phase.STOPPED, expires_at=soon)).is_expiring
    assert not row(record(phase=Phase.READY, spec=TWO_DAYS, expires_at=NOW + timedelta(hours=5))).is_expiring


def test_what_is_granted_is_said_in_few_words() -> None:
    spec = WorkspaceSpec(cpu_limit=0.5, mem_limit=3 * 1024**3 // 2, gpus="0,1")
    assert granted(spec) == ("0.5 cores", "1.5 GiB", "GPU 0,1")
    assert granted(WorkspaceSpec()) == ()
    for gpus, words in (("count:1", "1 GPU"), ("count:2", "2 GPUs"), ("all", "all GPUs")):
        assert granted(WorkspaceSpec(gpus=gpus)) == (words,)
    assert row(None, spec=spec).granted == granted(spec)


def test_hostile_names_make_harmless_links() -> None:
    links = links_of(Server('a"><script>/..', "gpu1"), hub_url="/hub/", base_url="/")
    for link in (links.open, links.progress, links.options, links.ssh, links.update, links.delete):
        assert not set('"<>') & set(link)
    assert links.open == "/user/a%22%3E%3Cscript%3E%2F../gpu1/"


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(days=2, hours=4, minutes=59), "2 d 4 h"),
        (timedelta(days=1), "1 d"),
        (timedelta(hours=3, minutes=5), "3 h 5 min"),
        (timedelta(seconds=61), "1 min"),
        (timedelta(seconds=-5), "0 s"),
    ],
)
def test_durations_are_words(span: timedelta, words: str) -> None:
    assert duration(span) == words


def test_sizes_and_places_are_words() -> None:
    assert [size(n) for n in (512 * 1024**2, 1024**3, 3 * 1024**3 // 2)] == ["512 MiB", "1 GiB", "1.5 GiB"]
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 112)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th"]
    )


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (340, "340 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (12 * 1024**2, "12 MiB"),
        (1023 * 1024, "1.0 MiB"),
        (3 * 1024**3, "3.0 GiB"),
        (5 * 1024**5, "5120 TiB"),
    ],
)
def test_amounts_of_bytes_have_a_unit_that_fits(count: int, words: str) -> None:
    assert amount(count) == words
