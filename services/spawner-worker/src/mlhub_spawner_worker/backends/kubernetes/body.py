"""What the cluster is asked to run: one pod's limits, rights, mounts and place. Pure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mlhub_shared.contracts.cluster import CONTAINER, Toleration
from mlhub_shared.contracts.policy import Profile, SharedVolume
from mlhub_shared.contracts.workspace import WorkspaceSpec
from mlhub_spawner_worker.backends.base import BackendError, Job
from mlhub_spawner_worker.backends.environment import environment_for
from mlhub_spawner_worker.backends.kubernetes import marks
from mlhub_spawner_worker.backends.kubernetes.configuration import Pull

Json = dict[str, Any]

_PULL = {"missing": "IfNotPresent", "always": "Always", "never": "Never"}

_AWAY = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
"""Taints of a node that does not answer."""

_HOME, _SHM, _TMP = "home", "shm", "tmp"
"""Names of volumes in the pod."""

_USER = re.compile(r"(?P<uid>\d{1,10})(:(?P<gid>\d{1,10}))?")


@dataclass(frozen=True)
class Plan:
    """All that a pod is made of."""

    job: Job
    profile: Profile
    pull: Pull = "missing"
    stop_grace: timedelta = timedelta(seconds=5)
    unreachable: timedelta = timedelta(minutes=5)
    """How long its node may be away before it is given up."""

    @property
    def image(self) -> str:
        """What it runs."""
        return self.job.record.spec.image or self.profile.image


def pod(plan: Plan) -> Json:
    """The body of the request that makes the pod; BackendError if the profile asks for what no pod can have."""
    record, profile, wanted = plan.job.record, plan.profile, plan.profile.kubernetes
    annotations = marks.of_pod(record, port=profile.port, home=profile.home)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": record.name,
            # Ours last: by them it is found again.
            "labels": wanted.labels | marks.labels(record.workspace),
            "annotations": wanted.annotations | annotations,
        },
        "spec": {
            # Whether it is started again is for the worker to say.
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": max(1, math.ceil(plan.stop_grace.total_seconds())),
            "automountServiceAccountToken": wanted.service_account is not None,
            "enableServiceLinks": False,
            "securityContext": _pod_rights(profile),
            "initContainers": [_init_container(plan, given) for given in wanted.init_containers],
            "containers": [_container(plan)],
            "volumes": _volumes(plan),
            **_place(plan),
        },
    }


def _container(plan: Plan) -> Json:
    profile, spec = plan.profile, plan.job.record.spec
    body: Json = {
        "name": CONTAINER,
        "image": plan.image,
        "imagePullPolicy": "Always" if spec.update else _PULL[plan.pull],
        "env": [
            {"name": name, "value": _literally(value)} for name, value in environment_for(plan.job, profile).items()
        ],
        "ports": [{"name": "http", "containerPort": profile.port, "protocol": "TCP"}],
        "resources": _resources(spec, profile, with_gpus=True),
        "securityContext": _rights(profile),
        "volumeMounts": _mounts(plan),
    }
    if profile.command is not None:
        # As for every engine: of the image's own entry point, if it has one.
        body["args"] = [_literally(argument) for argument in profile.command]
    return body


def _init_container(plan: Plan, given: Mapping[str, Any]) -> Json:
    """As the profile has it, within the same limits unless it has its own, and without any right it does not name."""
    defaults = {
        "imagePullPolicy": _PULL[plan.pull],
        "resources": _resources(plan.job.record.spec, plan.profile, with_gpus=False),
    }
    return {**defaults, **given, "securityContext": _within(_rights(plan.profile), given.get("securityContext") or {})}


def _within(rights: Json, given: Mapping[str, Any]) -> Json:
    """What is given counts; for what it leaves out, these rights do."""
    capabilities = rights["capabilities"] | (given.get("capabilities") or {})
    return {**rights, **given, "capabilities": capabilities}


def _place(plan: Plan) -> Json:
    wanted = plan.profile.kubernetes
    selector = plan.profile.node_labels | wanted.node_selector
    place: Json = {"tolerations": [*map(_toleration, wanted.tolerations), *_patience(plan)]}
    if selector:
        place["nodeSelector"] = selector
    if wanted.affinity:
        place["affinity"] = wanted.affinity
    if wanted.priority_class is not None:
        place["priorityClassName"] = wanted.priority_class
    if wanted.image_pull_secrets:
        place["imagePullSecrets"] = [{"name": name} for name in wanted.image_pull_secrets]
    if wanted.service_account is not None:
        place["serviceAccountName"] = wanted.service_account
    return place


def _toleration(wanted: Toleration) -> Json:
    values = {
        "key": wanted.key,
        "operator": wanted.operator,
        "value": wanted.value,
        "effect": wanted.effect,
        "tolerationSeconds": wanted.toleration_seconds,
    }
    return {name: value for name, value in values.items() if value is not None}


def _patience(plan: Plan) -> list[Json]:
    """How long a node may be away; what the profile says of the same taint counts."""
    told = {one.key for one in plan.profile.kubernetes.tolerations if one.effect in (None, "NoExecute")}
    seconds = math.ceil(plan.unreachable.total_seconds())
    return [
        {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
        for taint in _AWAY
        if taint not in told and None not in told
    ]


def _resources(spec: WorkspaceSpec, profile: Profile, *, with_gpus: bool) -> Json:
    wanted = profile.kubernetes
    limits, requests = {}, {}
    if spec.cpu_limit is not None:
        limits["cpu"] = _cores(spec.cpu_limit)
    if (cores := _least(wanted.cpu_request, spec.cpu_limit)) is not None:
        requests["cpu"] = _cores(cores)
    if spec.mem_limit is not None:
        limits["memory"] = str(spec.mem_limit)
    if (memory := _least(wanted.mem_request, spec.mem_limit)) is not None:
        requests["memory"] = str(int(memory))
    if with_gpus and spec.gpus is not None:
        if math.isinf(spec.gpu_count):
            raise BackendError("On Kubernetes nobody can ask for all GPUs; please say how many.")
        # What is counted in whole is asked for as a limit; the request is the same.
        limits[wanted.gpu_resource] = str(int(spec.gpu_count))
    return {"limits": limits, "requests": requests}


def _least(request: float | None, limit: float | None) -> float | None:
    """What is kept free for it: never more than its limit, and as much as that where nothing is said."""
    return limit if request is None else min(request, request if limit is None else limit)


def _cores(count: float) -> str:
    return f"{max(1, round(count * 1000))}m"


def _pod_rights(profile: Profile) -> Json:
    wanted = profile.kubernetes
    rights: Json = {"runAsNonRoot": wanted.run_as_non_root, "seccompProfile": {"type": "RuntimeDefault"}}
    if wanted.fs_group is not None:
        # Not file by file at each start: homes grow large.
        rights |= {"fsGroup": wanted.fs_group, "fsGroupChangePolicy": "OnRootMismatch"}
    if profile.user is not None:
        rights |= _user(profile.user)
    if wanted.run_as_non_root and rights.get("runAsUser") == 0:
        raise BackendError(
            f"The profile {profile.title} runs as root and forbids it: its kubernetes.run_as_non_root must be false."
        )
    return rights


def _user(user: str) -> dict[str, int]:
    match = _USER.fullmatch(user)
    if match is None:
        raise BackendError(
            f"Kubernetes takes users by number only: the profile's user must be like 1000 or 1000:100, not {user}."
        )
    group = {"runAsGroup": int(match["gid"])} if match["gid"] else {}
    return {"runAsUser": int(match["uid"]), **group}


def _rights(profile: Profile) -> Json:
    return {
        "privileged": False,
        "allowPrivilegeEscalation": profile.privilege_escalation,
        "capabilities": {"drop": ["ALL"], **({"add": list(profile.capabilities)} if profile.capabilities else {})},
        "readOnlyRootFilesystem": profile.kubernetes.read_only_root,
    }


def _volumes(plan: Plan) -> list[Json]:
    record, profile = plan.job.record, plan.profile
    volumes: list[Json] = []
    if record.spec.is_mount_volume:
        volumes.append({"name": _HOME, "persistentVolumeClaim": {"claimName": record.name}})
    elif _has_home(plan):
        volumes.append({"name": _HOME, "emptyDir": {}})
    if record.spec.shm_size is not None:
        # It counts as memory of the workspace.
        volumes.append({"name": _SHM, "emptyDir": {"medium": "Memory", "sizeLimit": str(record.spec.shm_size)}})
    if profile.kubernetes.read_only_root:
        volumes.append({"name": _TMP, "emptyDir": {}})
    return [*volumes, *(_shared(volume, index) for index, volume in enumerate(profile.volumes))]


def _has_home(plan: Plan) -> bool:
    """Its home is a volume; without one of its own it is what the image has there, unless that can't be written."""
    wanted = plan.profile.kubernetes
    return plan.job.record.spec.is_mount_volume or bool(wanted.init_containers) or wanted.read_only_root


def _mounts(plan: Plan) -> list[Json]:
    profile = plan.profile
    mounts: list[Json] = []
    if _has_home(plan):
        mounts.append({"name": _HOME, "mountPath": profile.home})
    if plan.job.record.spec.shm_size is not None:
        mounts.append({"name": _SHM, "mountPath": "/dev/shm"})  # noqa: S108  (where it is)
    if profile.kubernetes.read_only_root:
        mounts.append({"name": _TMP, "mountPath": "/tmp"})  # noqa: S108
    return mounts + [
        {"name": f"shared-{index}", "mountPath": volume.target, "readOnly": volume.read_only}
        for index, volume in enumerate(profile.volumes)
    ]


def _shared(volume: SharedVolume, index: int) -> Json:
    name = f"shared-{index}"
    if volume.source.startswith("/"):
        raise BackendError(
            f"The profile mounts {volume.source} of the node, which no workspace on Kubernetes may: put the data on a "
            "PersistentVolumeClaim, or on nfs://server/path, and name that."
        )
    if volume.source.startswith("nfs://"):
        server, _, path = volume.source.removeprefix("nfs://").partition("/")
        return {"name": name, "nfs": {"server": server, "path": f"/{path}", "readOnly": volume.read_only}}
    return {"name": name, "persistentVolumeClaim": {"claimName": volume.source, "readOnly": volume.read_only}}


def _literally(value: str) -> str:
    """Kept as it is where Kubernetes would put in other variables' values for `$(NAME)`."""
    return value.replace("$", "$$")
