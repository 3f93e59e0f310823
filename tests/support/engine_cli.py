"""The engine of this machine by its own client, for tests of the whole: what is there, and how nothing stays."""

import json
import random
import shutil
import subprocess
from typing import Any

FIREWALL_IMAGE = "mlhub-spawner-worker"


def docker(*arguments: str, within: float = 60, check: bool = True) -> str:
    """What a command of the client prints."""
    run = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=within, check=False, stdin=subprocess.DEVNULL
    )
    if check and run.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {run.stderr.strip() or run.stdout.strip()}")
    return run.stdout.strip()


def missing(*images: str) -> str | None:
    """Why nothing can be run here; None: it can."""
    if shutil.which("docker") is None:
        return "no Docker engine answers: there is no `docker` here"
    try:
        docker("version", "--format", "{{.Server.Version}}", within=20)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return f"no Docker engine answers: {str(error)[:200]}"
    there = set(docker("images", "--format", "{{.Repository}}").split())
    absent = sorted({*images, FIREWALL_IMAGE} - there)
    return f"no {', '.join(absent)} on this engine: make images" if absent else None


def new_hub() -> tuple[str, str]:
    """A name that no other test has, and a pool of addresses of its own."""
    return f"t{random.randrange(16**8):08x}", f"10.{random.randint(201, 249)}.{random.randrange(0, 256, 4)}.0/22"


def inspect(container: str) -> dict[str, Any]:
    """All that the engine tells of a container."""
    (found,) = json.loads(docker("container", "inspect", container))
    return dict(found)


def labelled(kind: str, hub_name: str) -> list[str]:
    """Containers, networks or volumes that were made for the users of a hub."""
    command = {"container": ("ps", "-a"), "network": ("network", "ls"), "volume": ("volume", "ls")}[kind]
    name = {"container": "{{.Names}}", "network": "{{.Name}}", "volume": "{{.Name}}"}[kind]
    return sorted(docker(*command, "--filter", f"label=mlhub.origin={hub_name}", "--format", name).split())


def everything_labelled(hub_name: str) -> list[str]:
    """All of that together."""
    return [name for kind in ("container", "network", "volume") for name in labelled(kind, hub_name)]


def wipe(hub_name: str) -> None:
    """Remove whatever was made for the users of a hub, its rules included."""
    if found := labelled("container", hub_name):
        docker("rm", "-f", "-v", *found, check=False)
    for kind in ("network", "volume"):
        if found := labelled(kind, hub_name):
            docker(kind, "rm", *found, check=False)
    docker(
        "run", "--rm", "--network=host", "--cap-add=NET_ADMIN", "--cap-add=NET_RAW", "--user=0", FIREWALL_IMAGE,
        "python", "-m", "mlhub_spawner_worker.firewall", "remove", "--hub", hub_name,
        check=False,
    )  # fmt: skip
