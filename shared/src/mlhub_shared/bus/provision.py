"""Streams and buckets as they must be; made or mended by whoever comes first."""

from datetime import timedelta

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StoreCompression, StreamConfig

from mlhub_shared.bus.connection import MARKERS_TTL, OUTAGES, Connection
from mlhub_shared.contracts.subjects import Subjects
from mlhub_shared.errors import BusUnavailable, Permanent

_NAME_IN_USE = 10058
_NOT_CLUSTERED = 10074
_TOO_FEW_SERVERS = {10005, 10023}
"""No peers for all copies, or none with the room for them: a server may be about to start."""
_LEASE_MARKERS_TTL = timedelta(seconds=1)
_DEAD_LETTERS_AGE = timedelta(days=30)


async def provision(connection: Connection, subjects: Subjects, *, replicas: int = 1) -> None:
    """Make every stream and bucket of the deployment; BusUnavailable if the bus is away."""
    for config in streams(subjects):
        config.num_replicas = replicas
        try:
            await _ensure(connection.js, config)
        except nats.js.errors.APIError as error:
            raise _refusal(config, error) from error
        except OUTAGES as error:
            raise BusUnavailable("the bus is away") from error


def _refusal(config: StreamConfig, error: nats.js.errors.APIError) -> BusUnavailable | Permanent:
    copies = f"MLHUB_NATS_REPLICAS is {config.num_replicas}"
    if error.err_code == _NOT_CLUSTERED:
        return BusUnavailable(f"{copies}, but the NATS server is not in a cluster")
    if error.err_code in _TOO_FEW_SERVERS:
        return BusUnavailable(f"{copies}, but not as many NATS servers of the cluster are there: {error.description}")
    if isinstance(error, OUTAGES):
        return BusUnavailable(f"the bus is not ready: {error.description}")
    return Permanent(f"the bus refuses stream {config.name}: {error.description}")


def streams(subjects: Subjects) -> list[StreamConfig]:
    """Every stream of a deployment, buckets included."""
    return [
        StreamConfig(
            name=subjects.commands,
            subjects=[subjects.all_commands],
            # The last command of a workspace stays readable after its ack: the hub folds it into `poll()`.
            retention=RetentionPolicy.LIMITS,
            max_msgs_per_subject=1,
            discard=DiscardPolicy.OLD,
            allow_direct=True,
        ),
        StreamConfig(
            name=subjects.events,
            subjects=[subjects.all_events],
            deny_delete=True,
            deny_purge=True,
            allow_direct=True,
            compression=StoreCompression.S2,
        ),
        # No maximum age: it would drop timers that lie far ahead.
        StreamConfig(
            name=subjects.timers,
            subjects=subjects.all_timers,
            allow_msg_schedules=True,
            allow_msg_ttl=True,
            allow_direct=True,
        ),
        StreamConfig(
            name=subjects.dead,
            subjects=[f"{subjects.hub}.dead.>"],
            max_age=_DEAD_LETTERS_AGE.total_seconds(),
            allow_direct=True,
        ),
        _bucket(subjects.workspaces),
        _bucket(subjects.routes),
        _bucket(subjects.ssh_keys),
        _bucket(subjects.secrets),
        _bucket(subjects.certs),
        _bucket(subjects.nodes),
        _bucket(subjects.workers, leases=True),
        _bucket(subjects.proxies, leases=True),
        _bucket(subjects.activity, leases=True),
        _bucket(subjects.sessions, leases=True),
    ]


def _bucket(name: str, *, leases: bool = False) -> StreamConfig:
    markers = _LEASE_MARKERS_TTL if leases else MARKERS_TTL
    return StreamConfig(
        name=f"KV_{name}",
        subjects=[f"$KV.{name}.>"],
        storage=StorageType.FILE,
        max_msgs_per_subject=1,
        discard=DiscardPolicy.NEW,
        deny_delete=True,
        allow_rollup_hdrs=True,
        allow_direct=True,
        allow_msg_ttl=True,
        # Without a marker no watch would see a key expire.
        subject_delete_marker_ttl=markers.total_seconds(),
    )


async def _ensure(js: JetStreamContext, config: StreamConfig) -> None:
    try:
        await js.add_stream(config)
    except nats.js.errors.BadRequestError as error:
        if error.err_code != _NAME_IN_USE:
            raise
        await js.update_stream(config)
