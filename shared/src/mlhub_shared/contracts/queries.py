"""Request/reply with workers."""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, Field, JsonValue, PositiveInt

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import WorkspaceRecord

PortNumber = Annotated[int, Field(gt=0, lt=65536)]

RESOLVE_TARGET = "resolve-target"
"""ResolveTarget -> Target; any worker answers."""
DESCRIBE_WORKSPACE = "describe-workspace"
"""DescribeWorkspace -> WorkspaceDescription; the worker of its node answers."""
LIST_RESOURCES = "list-resources"
"""ListResources -> Resources; the worker of one node answers."""
EXTEND_WORKSPACE = "extend-workspace"
"""ExtendWorkspace -> WorkspaceRecord; the worker of its node answers."""

DRAIN_NODE = "drain-node"
"""DrainNode -> WorkerLease; the worker of one node answers."""


LIST_PORTS = "list-ports"
"""ListPorts -> Ports; the worker of the workspace's node answers."""
OPEN_PORT = "open-port"
"""OpenPort -> Endpoint; the worker of the workspace's node answers."""

END_SESSION = "end-session"
"""EndSession -> OpenSession; the SSH gateway of that session answers, under its replica's name."""


class Failure(BaseModel):
    """Why a query has no answer, in a sentence."""

    message: str
    temporary: bool = False


class Reply(BaseModel):
    """Answer or failure, never both."""

    answer: JsonValue = None
    failure: Failure | None = None


class ResolveTarget(BaseModel):
    """Where does SSH into this workspace go?"""

    workspace: WorkspaceId


class Target(BaseModel):
    """The SSH endpoint of a workspace; `attach` is None while it can't be entered."""

    record: WorkspaceRecord | None
    """None: the workers know of no such workspace."""
    attach: "AttachAddress | None" = None


class AttachAddress(BaseModel):
    """A worker's attach endpoint: an SSH server that opens a workspace by its name as login name."""

    host: str
    port: int
    host_key: str
    """OpenSSH public key line, to be pinned."""


class DescribeWorkspace(BaseModel):
    """What does the backend see of this workspace?"""

    workspace: WorkspaceId


class WorkspaceDescription(BaseModel):
    """What the backend sees now."""

    record: WorkspaceRecord | None
    running: bool
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    log_tail: str = ""


class ListResources(BaseModel):
    """What exists on this node that carries the deployment's marks?"""


class Resource(BaseModel):
    """Something a backend made for a user."""

    kind: str
    """`process`, `directory`, `container`, `volume`, `network`."""
    name: str
    workspace: WorkspaceId | None = None


class Resources(BaseModel):
    """Everything of one node."""

    node: str
    resources: list[Resource]


class ExtendWorkspace(BaseModel):
    """Let this workspace live until then."""

    workspace: WorkspaceId
    generation: PositiveInt
    """The generation the asker saw; refused if the workspace has moved on."""
    expires_at: AwareDatetime | None
    """None: never."""
    requester: str
    correlation_id: str


class ListPorts(BaseModel):
    """On which ports do programs of this workspace listen?"""

    workspace: WorkspaceId


class Port(BaseModel):
    """A TCP port that a program of a workspace listens on."""

    port: PortNumber
    program: str = ""
    """Its name, as far as it can be told."""


class Ports(BaseModel):
    """All of them, in order, without the one that the workspace itself answers on."""

    ports: list[Port]


class OpenPort(BaseModel):
    """Where does the proxy reach this port of a workspace, its loopback included?

    NotFound if nothing of the workspace listens there.
    """

    workspace: WorkspaceId
    port: PortNumber


class EndSession(BaseModel):
    """End this SSH session."""

    id: str
    requester: str
    correlation_id: str


class DrainNode(BaseModel):
    """Take no more workspaces, or take them again; kept over a restart of the worker."""

    draining: bool
    requester: str
    correlation_id: str
