"""A workspace as it is asked for (spec) and as its worker last saw it (record)."""

import math
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt

from mlhub_shared.contracts.identity import Token, WorkspaceId


class Phase(StrEnum):
    """Where a workspace is in its life. A deleted one has no record."""

    QUEUED = "queued"
    PREPARING = "preparing"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_active(self) -> bool:
        """Wanted up: in line, on its way, or ready."""
        return self in {Phase.QUEUED, Phase.PREPARING, Phase.STARTING, Phase.READY}

    @property
    def takes_room(self) -> bool:
        """Counts against the capacity of its node."""
        return self in {Phase.PREPARING, Phase.STARTING, Phase.READY, Phase.STOPPING}

    @property
    def is_settled(self) -> bool:
        """Nothing will change by itself, but a death or an expiry."""
        return self in {Phase.READY, Phase.STOPPED, Phase.FAILED}


class Wanted(StrEnum):
    """The state last asked for."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


class Reason(StrEnum):
    """Why a workspace stopped or failed; pages turn it into a sentence."""

    ASKED = "asked"
    EXPIRED = "expired"
    EXITED = "exited"
    LOST = "lost"
    SHUTDOWN = "shutdown"
    INVALID = "invalid"
    TIMEOUT = "timeout"
    BACKEND = "backend"
    SECRETS_LOST = "secrets-lost"
    IMAGE = "image"
    OUT_OF_MEMORY = "out-of-memory"
    NO_ROOM = "no-room"
    """The cluster had none in time."""
    EVICTED = "evicted"
    """The cluster took its place away."""


COUNTED = "count:"
"""Begins the GPUs of a workspace that asks for a number of them, whichever they are."""

FOR_ROOM = "Waiting for room"
"""Message of a queued workspace that waits for nothing in particular."""


class WorkspaceSpec(BaseModel):
    """What to run, validated; sizes in bytes. Carries no secret value."""

    model_config = ConfigDict(frozen=True)

    profile: str | None = None
    image: str | None = None
    """None: the backend's default."""
    cpu_limit: PositiveFloat | None = None
    """Cores. None: no limit."""
    mem_limit: PositiveInt | None = None
    """Bytes. None: no limit."""
    shm_size: PositiveInt | None = None
    """Bytes. None: the backend's default."""
    gpus: str | None = None
    """`all`, device ids separated by commas, or `count:N` where the backend chooses which. None: no GPU."""
    env: dict[str, str] = Field(default_factory=dict)
    secret_env: tuple[str, ...] = ()
    """Names only; the values lie in the bucket of secrets."""
    lifetime: timedelta | None = None
    """From ready to its expiry. None: never expires."""
    is_mount_volume: bool = True
    display_name: str | None = None
    """What people call it. None: its server name."""
    own_tools: bool = False
    """Its image serves the paths below `tools/` by itself."""
    own_ssh: bool = False
    """Its image's port takes SSH too, and `/publickey` there is the key that its user logs in with."""
    update: bool = False
    """The image is fetched anew before it starts, even if the node has it."""

    @property
    def gpu_count(self) -> float:
        """How many GPUs are asked for; infinite for all there are."""
        if self.gpus is None:
            return 0
        if self.gpus.startswith(COUNTED):
            return int(self.gpus.removeprefix(COUNTED))
        return math.inf if self.gpus == "all" else len(set(self.gpus.split(",")))


class Endpoint(BaseModel):
    """Where the proxy reaches a workspace."""

    model_config = ConfigDict(frozen=True)

    host: str
    """An IP address, never a name."""
    port: Annotated[int, Field(gt=0, lt=65536)]


class WorkspaceRecord(BaseModel):
    """What the owning worker last saw of a workspace: the one source of truth about it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    workspace: WorkspaceId
    generation: PositiveInt
    """Of the command this record follows; grows strictly, in µs of the hub's time."""
    wanted: Wanted
    phase: Phase
    pool: Token
    node: Token | None = None
    """None until a worker has claimed it."""
    base_url: str
    """Route prefix, with both slashes: `/user/alice/gpu1/`, escaped as the hub escapes it."""
    spec: WorkspaceSpec
    sequence: NonNegativeInt = 0
    """Of the spawn command in its stream: the place in line."""
    endpoint: Endpoint | None = None
    progress: Annotated[int, Field(ge=0, le=100)] = 0
    message: str = ""
    """What it is doing, or why it failed, for people."""
    reason: Reason | None = None
    """Set in `stopping`, `stopped` and `failed`."""
    log_tail: str = ""
    """The last lines of its log, kept when it failed."""
    requester: str = ""
    correlation_id: str = ""
    requested_at: AwareDatetime
    phase_since: AwareDatetime
    started_at: AwareDatetime | None = None
    ready_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    erasing: bool = False
    """Its data go before anything else happens to it; only in `stopping`."""
    boot: str = ""
    """Of the engine or host it was started on; a newer one means that it died with it."""
    gpu_ids: tuple[str, ...] = ()
    """The GPUs of its node that it has, from its claim until it is down."""
    image_id: str = ""
    """What its image's name meant when it was started; empty where there are no images."""
    has_data: bool = True
    """Its node may keep data of it, so it returns there; one without may start anywhere."""

    @property
    def name(self) -> str:
        """Key of the record."""
        return self.workspace.name


class WorkspaceSecrets(BaseModel):
    """What a workspace needs to start and nobody else may read."""

    model_config = ConfigDict(extra="ignore")

    generation: PositiveInt
    env: dict[str, str] = Field(default_factory=dict)
    """Set by the hub for this start: API token, OAuth client, URLs."""
    secret_env: dict[str, str] = Field(default_factory=dict)
    """Set by the user; kept over stop and start."""


def queue_positions(records: list[WorkspaceRecord]) -> dict[str, int]:
    """Place in line, from 1, of every queued workspace among those of its pool."""
    positions: dict[str, int] = {}
    pools: dict[str, int] = {}
    queued = (record for record in records if record.phase is Phase.QUEUED)
    for record in sorted(queued, key=lambda record: (record.sequence, record.name)):
        pools[record.pool] = pools.get(record.pool, 0) + 1
        positions[record.name] = pools[record.pool]
    return positions
