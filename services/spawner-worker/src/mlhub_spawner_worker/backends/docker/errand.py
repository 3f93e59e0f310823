"""Containers of our own image that live for a moment: for what the worker itself may not do, or not where it runs."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from aiodocker.exceptions import DockerError

from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.docker import labels
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errors import Missing, translated
from mlhub_spawner_worker.backends.docker.own_container import own_container

DEFAULT_IMAGE = "mlhub-spawner-worker"

_WITHIN = 60
"""Seconds for one errand: the engine's client would wait for its end without a bound."""

_CONFINED = {
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges:true"],
    "ReadonlyRootfs": True,
    "Memory": 256 * 1024 * 1024,
    "PidsLimit": 64,
}


async def run_errand(
    engine: Engine, hub: str, service: str, command: Sequence[str], *, image: str | None, host: dict[str, Any]
) -> str:
    """What it said; BackendError if it fails, EngineAway if it takes longer than a minute.

    One of each `service` at a time. Without an `image` it has that of the worker's own container.
    """
    config: dict[str, Any] = {
        "Image": image or await _own_image(engine),
        "Entrypoint": list(command),
        "Cmd": [],
        "User": "0:0",
        "WorkingDir": "/",
        "Labels": {labels.DEPLOYMENT: hub, labels.SERVICE: service},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _CONFINED | host,
    }
    name = f"mlhub-{service}-{hub}"
    with translated(f"run {name}"):
        async with asyncio.timeout(_WITHIN):
            with suppress(DockerError):
                # Left by a worker that was ended at the wrong moment.
                await engine.docker.containers.container(name).delete(force=True)
            container = await engine.docker.containers.create(config, name=name)
            try:
                await container.start()
                ended = await container.wait()
                said = "".join(await container.log(stdout=True))
                complaint = "".join(await container.log(stderr=True))
            finally:
                await asyncio.shield(asyncio.ensure_future(container.delete(force=True)))
    return outcome(ended["StatusCode"], said, complaint)


def outcome(status: int | None, said: str, complaint: str) -> str:
    """What a command said; BackendError with its complaint if it failed."""
    if status != 0:
        raise BackendError((complaint or said).strip()[-400:] or f"the command ended with {status}")
    return said


async def _own_image(engine: Engine) -> str:
    own = await own_container(engine)
    if own is None:
        return DEFAULT_IMAGE
    try:
        shown: dict[str, Any] = json.loads(await engine.read(f"containers/{own}/json"))
    except Missing:
        return DEFAULT_IMAGE
    return str(shown["Image"])
