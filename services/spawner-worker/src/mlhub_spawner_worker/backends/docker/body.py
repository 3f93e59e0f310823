"""What the engine is asked to make: one container's limits, rights, mounts and network. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mlhub_shared.contracts.policy import Profile, SharedVolume
from mlhub_spawner_worker.backends.base import Job
from mlhub_spawner_worker.backends.docker import gpus, labels
from mlhub_spawner_worker.backends.docker.images import Image
from mlhub_spawner_worker.backends.docker.place import NetworkPlace
from mlhub_spawner_worker.backends.environment import environment_for

_INITS = {"tini", "tini-static", "dumb-init", "docker-init", "catatonit", "init", "s6-svscan"}
"""Entry points that take care of orphans themselves."""

_LEAST_CPU = 0.01
"""Cores; the engine refuses less."""

_MOST_MEMORY = 0.9
"""Of the node's, for a workspace that has no limit of its own: the rest is for those who serve them all."""


@dataclass(frozen=True)
class Plan:
    """All that a container is made of."""

    job: Job
    profile: Profile
    image: Image
    place: NetworkPlace
    volume: str | None
    """Mounted at the profile's home; None: what lies there goes with the container."""
    boot: str
    cores: float | None
    """Of the node: more can't be promised."""
    memory: int | None
    """Bytes of the node."""
    max_log_bytes: int


def container(plan: Plan) -> dict[str, Any]:
    """The body of the request that makes the container. Entry point and command are the image's own."""
    record, profile = plan.job.record, plan.profile
    port = f"{profile.port}/tcp"
    body: dict[str, Any] = {
        "Image": plan.image.name,
        "Hostname": record.name,
        "Env": [f"{name}={value}" for name, value in environment_for(plan.job, profile).items()],
        "Labels": labels.of_container(record, port=profile.port, home=profile.home, boot=plan.boot),
        "ExposedPorts": {port: {}},
        "HostConfig": _host(plan) | _limits(plan) | _rights(profile),
    }
    if profile.user is not None:
        body["User"] = profile.user
    if profile.command is not None:
        body["Cmd"] = list(profile.command)
    if plan.place.publish_on is not None:
        # No port: the engine finds a free one.
        body["HostConfig"]["PortBindings"] = {port: [{"HostIp": plan.place.publish_on, "HostPort": ""}]}
    return body


def _host(plan: Plan) -> dict[str, Any]:
    half = max(plan.max_log_bytes // 2, 1024)
    return {
        "NetworkMode": plan.place.network,
        "ExtraHosts": list(plan.place.extra_hosts),
        "Mounts": _mounts(plan),
        "DeviceRequests": gpus.request(plan.job.record.gpu_ids),
        # Whether it is started again is for the worker to say.
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": str(half), "max-file": "2"}},
        "Init": not _brings_init(plan.image),
    }


def _limits(plan: Plan) -> dict[str, Any]:
    spec = plan.job.record.spec
    limits: dict[str, Any] = {"PidsLimit": plan.profile.pids_limit}
    cores = [count for count in (spec.cpu_limit, plan.cores) if count is not None]
    if cores:
        limits["NanoCpus"] = round(max(min(cores), _LEAST_CPU) * 1e9)
    memory = spec.mem_limit or int((plan.memory or 0) * _MOST_MEMORY)
    if memory:
        # Of both together: swap would soften the limit.
        limits |= {"Memory": memory, "MemorySwap": memory}
    if spec.shm_size is not None:
        limits["ShmSize"] = spec.shm_size
    return limits


def _rights(profile: Profile) -> dict[str, Any]:
    return {
        "Privileged": False,
        "CapDrop": ["ALL"],
        "CapAdd": list(profile.capabilities),
        "SecurityOpt": [] if profile.privilege_escalation else ["no-new-privileges:true"],
    }


def _brings_init(image: Image) -> bool:
    return bool(image.entrypoint) and PurePosixPath(image.entrypoint[0]).name in _INITS


def _mounts(plan: Plan) -> list[dict[str, Any]]:
    record = plan.job.record
    mounts: list[dict[str, Any]] = [_shared(volume, record.workspace.hub) for volume in plan.profile.volumes]
    if plan.volume is not None:
        # One that somebody has removed meanwhile is made anew by the engine: it must be known for what it is.
        made = {"Labels": labels.of_volume(record.workspace, base_url=record.base_url)}
        mount = {"Type": "volume", "Source": plan.volume, "Target": plan.profile.home, "VolumeOptions": made}
        mounts.append(mount)
    return mounts


def _shared(volume: SharedVolume, hub: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"Target": volume.target, "ReadOnly": volume.read_only}
    if volume.source.startswith("/"):
        # Engines before 25 leave writable what is mounted below, so it stays away.
        alone = {"BindOptions": {"NonRecursive": True}} if volume.read_only else {}
        return mount | {"Type": "bind", "Source": volume.source} | alone
    if not volume.source.startswith("nfs://"):
        return mount | {"Type": "volume", "Source": volume.source}
    options = _nfs(volume)
    # The options of a volume can't be changed, so others make another volume.
    digest = hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:16]
    made = {"Labels": {labels.DEPLOYMENT: hub}, "DriverConfig": {"Name": "local", "Options": options}}
    return mount | {"Type": "volume", "Source": f"mlhub-nfs-{hub}-{digest}", "VolumeOptions": made}


def _nfs(volume: SharedVolume) -> Mapping[str, str]:
    server, _, path = volume.source.removeprefix("nfs://").partition("/")
    access = "ro" if volume.read_only else "rw"
    return {"type": "nfs", "o": f"addr={server},{access},nolock,soft,timeo=100", "device": f":/{path}"}
