"""Every subject, stream, bucket and durable of a deployment, in one table; all begin with the hub's name."""

from dataclasses import dataclass

ANY_NODE = "_any"
"""Stands for the node of a command whose workspace has not been placed yet."""

NO_WORKSPACE = "_"
"""Stands for the workspace of an event that concerns a user or a service."""


@dataclass(frozen=True)
class Subjects:
    """The names of one deployment on the bus."""

    hub: str

    # Streams
    @property
    def commands(self) -> str:
        """Stream: the last command of every workspace and node subject."""
        return f"{self.hub}_COMMANDS"

    @property
    def events(self) -> str:
        """Stream: everything that happened; nobody may delete from it."""
        return f"{self.hub}_EVENTS"

    @property
    def timers(self) -> str:
        """Stream: schedules and what they fire."""
        return f"{self.hub}_TIMERS"

    @property
    def dead(self) -> str:
        """Stream: deliveries nobody could handle."""
        return f"{self.hub}_DEAD"

    # Buckets
    @property
    def workspaces(self) -> str:
        """Bucket: workspace name -> WorkspaceRecord; written by the owning worker."""
        return f"{self.hub}_workspaces"

    @property
    def workers(self) -> str:
        """Bucket with TTL: node, or node and replica -> WorkerLease."""
        return f"{self.hub}_workers"

    @property
    def nodes(self) -> str:
        """Bucket: node -> NodeMark, of nodes that several workers share; written by them."""
        return f"{self.hub}_nodes"

    @property
    def routes(self) -> str:
        """Bucket: encoded route specification -> Route; written by the hub."""
        return f"{self.hub}_routes"

    @property
    def proxies(self) -> str:
        """Bucket with TTL: replica -> ProxyState; written by the proxy's agents."""
        return f"{self.hub}_proxies"

    @property
    def activity(self) -> str:
        """Bucket with TTL: replica -> ProxyActivity; written by the proxy's agents."""
        return f"{self.hub}_activity"

    @property
    def certs(self) -> str:
        """Bucket: what the proxies share to end TLS; written and read by them alone."""
        return f"{self.hub}_certs"

    @property
    def sessions(self) -> str:
        """Bucket with TTL: session id -> OpenSession; written by the SSH gateways."""
        return f"{self.hub}_sessions"

    @property
    def ssh_keys(self) -> str:
        """Bucket: fingerprint -> SshKey; written by the hub."""
        return f"{self.hub}_ssh-keys"

    @property
    def secrets(self) -> str:
        """Bucket: workspace name -> WorkspaceSecrets; written by the hub, read by the worker."""
        return f"{self.hub}_secrets"

    # Subjects
    @property
    def all_commands(self) -> str:
        """Everything the stream of commands keeps."""
        return f"{self.hub}.cmd.>"

    def command(self, pool: str, workspace: str, node: str | None = None) -> str:
        """Where a workspace's commands go: its pool, and its node once it is placed."""
        return f"{self.hub}.cmd.{pool}.{node or ANY_NODE}.{workspace}"

    def commands_of(self, pool: str, node: str | None = None) -> str:
        """What a worker of this pool (or this very node) pulls."""
        return f"{self.hub}.cmd.{pool}.{node or ANY_NODE}.*"

    @property
    def all_events(self) -> str:
        """Everything the stream of events keeps."""
        return f"{self.hub}.evt.>"

    def event(self, kind: str, workspace: str | None = None) -> str:
        """Where an event goes."""
        return f"{self.hub}.evt.{workspace or NO_WORKSPACE}.{kind}"

    def events_of(self, workspace: str) -> str:
        """All events of one workspace."""
        return f"{self.hub}.evt.{workspace}.*"

    def events_named(self, kind: str) -> str:
        """All events of one kind."""
        return f"{self.hub}.evt.*.{kind}"

    def timer(self, purpose: str, workspace: str) -> str:
        """The schedule of a purpose (`warn`, `expire`) of a workspace."""
        return f"{self.hub}.timer.{purpose}.{workspace}"

    def due(self, purpose: str, workspace: str) -> str:
        """Where that schedule fires."""
        return f"{self.hub}.due.{purpose}.{workspace}"

    @property
    def all_timers(self) -> list[str]:
        """Everything the stream of timers keeps."""
        return [f"{self.hub}.timer.>", f"{self.hub}.due.>"]

    @property
    def all_due(self) -> str:
        """Every fired schedule."""
        return f"{self.hub}.due.>"

    def dead_letter(self, consumer: str) -> str:
        """Where a consumer leaves what it could not handle."""
        return f"{self.hub}.dead.{consumer}"

    def query(self, verb: str, node: str | None = None) -> str:
        """Request/reply to any worker, or to the worker of one node."""
        return f"{self.hub}.query.{verb}.{node or ANY_NODE}"


def command_durable(pool: str, node: str | None = None) -> str:
    """Durable consumer of the workers of a pool, or of one node."""
    return f"spawner-worker-{pool}-{node}" if node else f"spawner-worker-{pool}"
