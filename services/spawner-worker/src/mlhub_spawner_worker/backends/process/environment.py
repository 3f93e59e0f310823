"""What a workspace finds in its environment: nothing of the worker's own but what is listed here."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlhub_shared.contracts.environment import RESERVED_ENV
from mlhub_spawner_worker.backends.base import Job

MARKER = "MLHUB_WORKSPACE"
"""Names the workspace in everything it starts."""

INSTANCE = "MLHUB_INSTANCE"
"""Tells the workspaces of this worker from those of another one on the same machine."""

_KEPT = ("PATH", "LANG", "LANGUAGE", "TZ", "SHELL", "USER", "LOGNAME", "TERM", "LD_LIBRARY_PATH")
_KEPT_PREFIX = "LC_"


def environment_for(
    job: Job,
    own: Mapping[str, str],
    *,
    home: Path,
    port: int,
    instance: str,
    passed: Sequence[str] = (),
) -> dict[str, str]:
    """The whole environment of a workspace."""
    record, secrets = job.record, job.secrets
    chosen = {**record.spec.env, **secrets.secret_env}
    return {
        **_base(own, passed),
        **secrets.env,
        **{name: value for name, value in chosen.items() if not name.startswith(RESERVED_ENV)},
        "HOME": str(home),
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}{record.base_url}",
        "MLHUB_PORT": str(port),
        "MLHUB_BASE_URL": record.base_url,
        MARKER: record.name,
        INSTANCE: instance,
    }


def _base(own: Mapping[str, str], passed: Sequence[str]) -> dict[str, str]:
    base = {
        name: value for name, value in own.items() if name in _KEPT or name.startswith(_KEPT_PREFIX) or name in passed
    }
    # The programs of this Python first: kernels and terminals are to find the `python` that runs the server.
    base["PATH"] = f"{Path(sys.executable).parent}:{base.get('PATH', '/usr/local/bin:/usr/bin:/bin')}"
    return base
