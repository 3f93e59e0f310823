"""What services say of themselves and of routes and keys: the other buckets' values."""

from collections.abc import Iterable
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel

from mlhub_shared.contracts.events import Detail
from mlhub_shared.contracts.identity import Token, WorkspaceId
from mlhub_shared.contracts.queries import AttachAddress


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class WorkerLease(_Value):
    """A worker that lives; gone from its bucket 15 s after its last word."""

    node: str
    identity: str = ""
    """Of the node's data, so that another node of the same name is known for one. Empty: not told."""
    replica: str = ""
    """Of the workers that share this node. Empty: there is one."""
    data: str = ""
    """Identity of this worker's own data where several share a node, so that another one of the same name is known for
    one. Empty: not told."""
    trouble: str = ""
    """Why this worker can't reach what it runs workspaces on, in a sentence: the others act in its place. Empty: it
    can."""
    pool: str
    backend: str
    """`process`, `docker`, `kubernetes`."""
    capacity: int | None = None
    """How many workspaces at once. None: no limit."""
    running: int = 0
    cpu_total: float | None = None
    """Cores of the node."""
    mem_total: int | None = None
    """Bytes of the node."""
    cpu_capacity: float | None = None
    """Cores to be promised at most. None: no limit, they are shared."""
    mem_capacity: int | None = None
    """Bytes, likewise."""
    cpu_granted: float = 0
    """Cores promised to workspaces that take room here."""
    mem_granted: int = 0
    """Bytes, likewise."""
    gpus: tuple[str, ...] = ()
    """Ids of the node's GPUs."""
    gpus_free: tuple[str, ...] = ()
    """Those that no workspace has."""
    gpus_counted: bool = False
    """It has GPUs that are asked for by their number, and does not say how many."""
    labels: dict[str, str] = Field(default_factory=dict)
    """What profiles may ask of a node."""
    draining: bool = False
    """Takes no new workspaces; what runs here runs on."""
    attach: AttachAddress | None = None
    version: str = ""
    limits: str = ""
    """How far this backend limits CPU and memory, in a sentence."""
    started_at: AwareDatetime

    @property
    def key(self) -> str:
        """Of its entry."""
        return f"{self.node}.{self.replica}" if self.replica else self.node


def by_node(leases: Iterable[WorkerLease]) -> dict[str, WorkerLease]:
    """One lease for each node with a worker that lives; where several share it, of the one that lives the longest, and
    rather of one that is well."""
    found: dict[str, WorkerLease] = {}
    for lease in sorted(leases, key=lambda lease: (bool(lease.trouble), lease.started_at, lease.replica), reverse=True):
        found[lease.node] = lease
    return found


class NodeMark(_Value):
    """What an administrator has said of a node that several workers share."""

    draining: bool


class Route(_Value):
    """A route of the hub itself, a service, or an extra; workspace routes come from the records."""

    routespec: str
    """Path prefix with both slashes, or host and path."""
    target: str
    """URL."""
    data: dict[str, Detail] = Field(default_factory=dict)


class Activity(_Value):
    """What one proxy replica saw of a workspace."""

    last_activity: AwareDatetime
    bytes_in: int = 0
    bytes_out: int = 0
    open_connections: int = 0


class ProxyState(_Value):
    """What one replica of the proxy serves."""

    replica: str
    workspaces_revision: int = 0
    """Of the newest workspace record it routes by."""
    routes_revision: int = 0
    version: str = ""
    tls_pin: str | None = None
    """`sha256//...` of its certificate's public key, as curl pins it. None: no TLS, or others vouch for it."""


class ProxyActivity(_Value):
    """What went through one replica of the proxy; apart from its state, which is written at each change of a route."""

    replica: str
    workspaces: dict[str, Activity] = Field(default_factory=dict)
    """By workspace name; only those with any activity."""


class SshKey(_Value):
    """A public key that logs a user in."""

    user: str
    label: str
    public_key: str
    """OpenSSH line without comment: type and base64."""
    fingerprint: str
    """`SHA256:...` as OpenSSH shows it."""
    added_at: AwareDatetime


class OpenSession(_Value):
    """Somebody who is in a workspace by SSH now; gone from its bucket soon after its gateway's last word."""

    id: str
    """Also the correlation id of its events."""
    gateway: Token
    """The replica that carries it, and can end it."""
    requester: str
    """`user:NAME` or `service:NAME`."""
    workspace: WorkspaceId
    client: str
    """Address."""
    method: str
    """`key` or `token`."""
    fingerprint: str | None = None
    """Of the key."""
    opened_at: AwareDatetime
    bytes_in: int = 0
    """From the client, as far as they have been told."""
    bytes_out: int = 0
    """To the client, likewise."""


class Certificate(_Value):
    """What the proxies show where nobody mounted a certificate."""

    kind: Literal["certificate"]
    pem: str = Field(repr=False)
    """Private key, then certificates, the server's own first."""


class AcmeAccount(_Value):
    """Who the proxies are to a certificate authority."""

    kind: Literal["account"]
    key: str = Field(repr=False)
    """PEM."""


class AcmeTurn(_Value):
    """Keeps all replicas from asking a certificate authority until its time is over: one does, or did in vain."""

    kind: Literal["turn"]
    replica: str
    until: AwareDatetime
    failures: int = 0
    """In a row."""
    problem: str | None = None
    """Of the last one, for people."""


class AcmeChallenge(_Value):
    """What every replica answers to a certificate authority."""

    kind: Literal["challenge"]
    path: str
    answer: str


class TlsEntry(RootModel[Annotated[Certificate | AcmeAccount | AcmeTurn | AcmeChallenge, Field(discriminator="kind")]]):
    """What the proxies share to end TLS."""


def route_key(routespec: str) -> str:
    """A key the bus accepts, one to one with the route specification."""
    return "r" + quote(routespec, safe="/-_").replace("~", "%7E").replace(".", "%2E").replace("%", "=")


def ssh_key_key(fingerprint: str) -> str:
    """A key the bus accepts, one to one with an OpenSSH SHA256 fingerprint."""
    return fingerprint.removeprefix("SHA256:").replace("+", "-").replace("/", "_")
