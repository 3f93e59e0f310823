"""What a page says about a workspace: pure functions of its record and of what JupyterHub knows."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import quote, urlencode

from mlhub_hub.nodes import unreachable
from mlhub_hub.pages.differences import differences
from mlhub_hub.pages.rights import Rights
from mlhub_hub.pages.words import cores, duration, ordinal, size
from mlhub_shared.contracts.policy import Policy, gpus_in_words
from mlhub_shared.contracts.timers import warns_at
from mlhub_shared.contracts.workspace import COUNTED, Phase, Reason, WorkspaceRecord, WorkspaceSpec

_WORTH_EXTENDING = timedelta(minutes=1)

_UPDATABLE = {"start", "retry", "open"}
"""What a workspace offers that can be made anew from the newest image."""


class Tone(StrEnum):
    """How a status looks, beside its word."""

    OK = "ok"
    BUSY = "busy"
    WAITING = "waiting"
    OFF = "off"
    BAD = "bad"
    AWAY = "away"


@dataclass(frozen=True)
class Server:
    """What JupyterHub knows of a workspace."""

    user: str
    name: str = ""
    """Empty: the default one."""
    display_name: str = ""
    pending: str | None = None
    """`spawn`, `stop` ... while JupyterHub is at it."""
    last_activity: datetime | None = None
    was_started: bool = False
    failure: str = ""
    """Why the hub could not even ask for the last start."""

    @property
    def title(self) -> str:
        """What people call it."""
        return self.display_name or self.name or "Default workspace"


@dataclass(frozen=True)
class Status:
    """One word, and what it means if that isn't plain."""

    word: str
    tone: Tone
    sentence: str = ""
    progress: int | None = None


@dataclass(frozen=True)
class Links:
    """Where the buttons of a workspace lead."""

    open: str
    progress: str
    options: str
    ssh: str
    tools: str
    update: str
    delete: str
    action: str
    """Start, stop, extend and update are posted below it."""


@dataclass(frozen=True)
class Row:
    """A workspace on the home page."""

    key: str
    """Of its record; the element's id on the page."""
    server: Server
    status: Status
    links: Links
    granted: tuple[str, ...] = ()
    profile: str | None = None
    """Its title."""
    image: str | None = None
    differences: tuple[str, ...] = ()
    """From what its profile gives to everybody."""
    expires_at: datetime | None = None
    is_expiring: bool = False
    life: str = ""
    """In words, where there is no time of expiry."""
    extend_by: str | None = None
    """What *Extend* adds; None: no such button."""
    log_tail: str = ""
    can: frozenset[str] = field(default_factory=frozenset)
    """Of `open`, `watch`, `start`, `retry`, `stop`, `cancel`, `options`, `update`, `delete`."""


_REASONS = {
    Reason.EXPIRED: "It was stopped because its time was over.",
    Reason.EXITED: "It ended by itself.",
    Reason.LOST: "Its process was gone.",
    Reason.SHUTDOWN: "It was stopped when the system was shut down.",
    Reason.INVALID: "Its options are not allowed here.",
    Reason.TIMEOUT: "It did not get ready in time.",
    Reason.BACKEND: "The machine could not start it.",
    Reason.IMAGE: "Its image could not be fetched. Choose another one under Options, or ask an administrator.",
    Reason.OUT_OF_MEMORY: "It needed more memory than it may have. Give it more under Options.",
    Reason.NO_ROOM: "The cluster had no room for it.",
    Reason.EVICTED: "The cluster took its place away.",
    Reason.SECRETS_LOST: "Its secret values were lost: enter them again under Options.",
}

_STEPS = {Phase.PREPARING: "Preparing", Phase.STARTING: "Starting", Phase.STOPPING: "Stopping"}


def status_of(
    record: WorkspaceRecord | None, server: Server, *, position: int | None = None, is_unreachable: bool = False
) -> Status:
    """What to say of a workspace. `position` is its place in line, from 1; unreachable: its node is away."""
    if record is not None and is_unreachable:
        return Status("Unreachable", Tone.AWAY, unreachable(record))
    if server.pending == "stop" and (record is None or record.phase.is_active):
        return Status("Stopping", Tone.BUSY)
    if record is None or not (record.phase.is_active or record.phase is Phase.STOPPING):
        if server.pending == "spawn":
            return Status("Requested", Tone.WAITING, "Waiting for a machine to take it.")
        return _status_at_rest(record, server)
    if record.phase is Phase.QUEUED:
        place = f"Queued, {ordinal(position)}" if position else "Queued"
        return Status(place, Tone.WAITING, record.message or "Waiting for room on a machine.")
    if record.phase is Phase.READY:
        return Status("Ready", Tone.OK, record.message)
    progress = record.progress if record.phase is not Phase.STOPPING else None
    word = _STEPS[record.phase] + (f" {progress} %" if progress else "")
    return Status(word, Tone.BUSY, record.message, progress)


def _status_at_rest(record: WorkspaceRecord | None, server: Server) -> Status:
    if server.failure and (record is None or record.phase is not Phase.FAILED):
        return Status("Failed", Tone.BAD, server.failure)
    if record is None:
        return Status("Stopped", Tone.OFF, "" if server.was_started else "Never started.")
    sentence = reason_sentence(record)
    if record.phase is Phase.FAILED:
        return Status("Failed", Tone.BAD, sentence or "It could not be started.")
    return Status("Stopped", Tone.OFF, sentence)


def reason_sentence(record: WorkspaceRecord) -> str:
    """Why it stopped or failed; empty where somebody asked for it."""
    own = record.message.strip() if record.phase is Phase.FAILED else ""
    return own or (_REASONS.get(record.reason, "") if record.reason else "")


def granted(spec: WorkspaceSpec) -> tuple[str, ...]:
    """What a workspace may use, in a few words each."""
    return tuple(
        filter(
            None,
            [
                cores(spec.cpu_limit) if spec.cpu_limit else None,
                size(spec.mem_limit) if spec.mem_limit else None,
                _gpus(spec),
            ],
        )
    )


def _gpus(spec: WorkspaceSpec) -> str | None:
    if spec.gpus is None or spec.gpus == "all":
        return "all GPUs" if spec.gpus else None
    return gpus_in_words(spec.gpu_count) if spec.gpus.startswith(COUNTED) else f"GPU {spec.gpus}"


def extended(record: WorkspaceRecord, policy: Policy, now: datetime) -> datetime | None:
    """Until when *Extend* lets it live: as long again as it was made for; None if there is nothing to gain."""
    if record.phase is not Phase.READY or record.expires_at is None or record.spec.lifetime is None:
        return None
    until = max(record.expires_at, now) + record.spec.lifetime
    if policy.max_days_to_live is not None:
        until = min(until, now + timedelta(days=policy.max_days_to_live))
    return until if until - record.expires_at >= _WORTH_EXTENDING else None


def actions(record: WorkspaceRecord | None, server: Server, status: Status, rights: Rights) -> frozenset[str]:
    """What the buttons of a workspace offer now."""
    if status.tone is Tone.OK:
        return frozenset({"open", "stop"} | _deletable(record, server, rights))
    if status.tone is Tone.AWAY:
        return frozenset({"stop"} | _deletable(record, server, rights))
    if status.word == "Stopping":
        return frozenset()
    if status.tone in (Tone.BUSY, Tone.WAITING):
        return frozenset({"watch", "cancel"} if server.pending == "spawn" else {"cancel"})
    can = set()
    if server.name or server.was_started or record is not None or rights.make_default:
        can.add("retry" if status.tone is Tone.BAD else "start")
    if rights.change_options:
        can.add("options")
    return frozenset(can | _deletable(record, server, rights))


def _deletable(record: WorkspaceRecord | None, server: Server, rights: Rights) -> set[str]:
    # Of the default workspace an entry always stays; only what it has can go.
    return {"delete"} if rights.delete and (server.name or record is not None) else set()


def links_of(server: Server, *, hub_url: str, base_url: str) -> Links:
    """Addresses of one workspace; both prefixes end with a slash."""
    path = _path(server)
    query = urlencode({"user": server.user, "server": server.name})
    return Links(
        open=f"{base_url}user/{path}/",
        progress=f"{hub_url}spawn-pending/{path}",
        options=f"{hub_url}spawn/{path}",
        ssh=f"{hub_url}workspaces/ssh?{query}",
        tools=f"{hub_url}workspaces/tools?{query}",
        update=f"{hub_url}workspaces/confirm-update?{query}",
        delete=f"{hub_url}workspaces/confirm-delete?{query}",
        action=f"{hub_url}workspaces",
    )


def _path(server: Server) -> str:
    names = [server.user, server.name] if server.name else [server.user]
    return "/".join(quote(name, safe="@~") for name in names)


def row_of(
    record: WorkspaceRecord | None,
    server: Server,
    *,
    key: str,
    links: Links,
    rights: Rights,
    policy: Policy,
    now: datetime,
    spec: WorkspaceSpec | None = None,
    position: int | None = None,
    is_unreachable: bool = False,
) -> Row:
    """All that the home page says of one workspace. `spec`: what its next start gives it, where it is not up."""
    status = status_of(record, server, position=position, is_unreachable=is_unreachable)
    shown = record if record is not None and status.word != "Requested" else None
    until = extended(shown, policy, now) if shown else None
    spec = record.spec if record and (spec is None or record.phase.is_active) else spec
    can = actions(record, server, status, rights)
    expires_at = shown.expires_at if shown and shown.phase.is_active else None
    return Row(
        key=key,
        server=server,
        status=status,
        links=links,
        granted=granted(spec) if spec else (),
        profile=_profile_title(spec, policy) if spec else None,
        image=spec.image if spec else None,
        differences=differences(spec, policy) if spec else (),
        expires_at=expires_at,
        is_expiring=bool(shown and expires_at and warns_at(shown.ready_at, expires_at) <= now),
        life=_life(shown, expires_at),
        extend_by=duration(until - expires_at) if until and expires_at else None,
        log_tail=shown.log_tail if shown and shown.phase is Phase.FAILED else "",
        can=can | {"update"} if policy.images_allowed and can & _UPDATABLE else can,
    )


def _profile_title(spec: WorkspaceSpec, policy: Policy) -> str | None:
    titles = {profile.name: profile.title for profile in policy.profiles}
    return titles.get(spec.profile, spec.profile) if spec.profile else None


def _life(record: WorkspaceRecord | None, expires_at: datetime | None) -> str:
    if record is None or expires_at is not None or not record.phase.is_active:
        return ""
    if record.spec.lifetime is None:
        return "no end"
    return f"{duration(record.spec.lifetime)} once ready"
