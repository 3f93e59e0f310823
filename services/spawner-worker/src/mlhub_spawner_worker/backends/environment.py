"""What a workspace's server finds in its environment: the contract of docker-stacks and of ml-workspace. Pure."""

import math

from mlhub_shared.contracts.environment import RESERVED_ENV
from mlhub_shared.contracts.policy import Profile
from mlhub_shared.contracts.workspace import COUNTED, WorkspaceRecord
from mlhub_spawner_worker.backends.base import Job

_DEVICES = ("NVIDIA_VISIBLE_DEVICES", "NVIDIA_MIG_", "NVIDIA_IMEX_", "AMD_VISIBLE_DEVICES", "HABANA_VISIBLE_DEVICES")
"""Prefixes of variables by which engines give devices to whoever has them: what a pod says itself counts for more there
than what the cluster has chosen for it."""

_NO_GPU = "void"
"""An image for GPUs asks for all of them unless it is told this."""


def environment_for(job: Job, profile: Profile) -> dict[str, str]:
    """All that is set beside the image's own; nobody's choice overrides what the hub and the worker say."""
    record, secrets = job.record, job.secrets
    chosen = {**_defaults(job), **profile.env, **record.spec.env, **secrets.secret_env}
    return {
        **{name: value for name, value in chosen.items() if not name.startswith((*RESERVED_ENV, *_DEVICES))},
        **secrets.env,
        "JUPYTERHUB_SERVICE_PREFIX": record.base_url,
        "JUPYTERHUB_SERVICE_URL": f"http://0.0.0.0:{profile.port}{record.base_url}",
        # Without it, ml-workspace lets everybody use its tools.
        "AUTHENTICATE_VIA_JUPYTER": "true",
        "SSH_JUMPHOST_TARGET": record.name,
        **_devices(record),
        "MLHUB_WORKSPACE": record.name,
    }


def _devices(record: WorkspaceRecord) -> dict[str, str]:
    # Where GPUs are counted, the cluster says which.
    is_counted = (record.spec.gpus or "").startswith(COUNTED)
    return {} if is_counted else {"NVIDIA_VISIBLE_DEVICES": ",".join(record.gpu_ids) or _NO_GPU}


def _defaults(job: Job) -> dict[str, str]:
    spec = job.record.spec
    found = {"SHUTDOWN_INACTIVE_KERNELS": "true"}
    if spec.cpu_limit is not None:
        found |= {"MAX_NUM_THREADS": str(math.ceil(spec.cpu_limit)), "CPU_LIMIT": f"{spec.cpu_limit:g}"}
    if spec.mem_limit is not None:
        found["MEM_LIMIT"] = str(spec.mem_limit)
    return found
