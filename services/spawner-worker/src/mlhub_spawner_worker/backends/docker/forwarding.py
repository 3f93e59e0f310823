"""Keeps the worker's own container, where that joins the users' networks, from being a way between them."""

from pathlib import Path

import structlog

from mlhub_shared.errors import MLHubError
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errand import run_errand

log = structlog.get_logger(__name__)

_SWITCH = Path("/proc/sys/net/ipv4/ip_forward")
"""Of this network; engines put 1 there and make the file read-only."""


async def close_forwarding(engine: Engine, hub: str, own: str, *, image: str | None) -> None:
    """Have an engine that starts a container in the network of our `own` one set it to 0 there.

    Not in vain, though programs in workspaces have no right to choose a way for their packets: somebody may lend it
    to a profile. Says so where it can't be done.
    """
    if _is_closed():
        return
    host = {"NetworkMode": f"container:{own}", "Sysctls": {"net.ipv4.ip_forward": "0"}}
    why = "the engine has not done it"
    try:
        await run_errand(engine, hub, "forwarding", ["true"], image=image, host=host)
    except MLHubError as error:
        why = str(error)
    if not _is_closed():
        log.warning("docker.forwarding_stays", why=why, remedy="docker run --sysctl net.ipv4.ip_forward=0")


def _is_closed() -> bool:
    return _SWITCH.read_text().strip() == "0"
