"""The Docker engine of this machine, a tiny image for it, and deployments of the test's own that leave nothing."""

import asyncio
import contextlib
import functools
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from mlhub_shared.contracts.policy import Profile
from mlhub_spawner_worker.backends.docker import DockerBackend, DockerSettings, ReachSettings
from mlhub_spawner_worker.backends.docker import labels as marks
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.place import DefaultBridge, Networks

SOCKET = "/var/run/docker.sock"
ENGINE_URL = f"unix://{SOCKET}"
IMAGE = "mlhub-test-server:3"
PORT = 8888

_SOURCE = Path(__file__).with_name("workspace_server.c")


def engine_answers() -> bool:
    """Whether an engine is there."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        return connection.connect_ex(SOCKET) == 0


def need_engine() -> None:
    """Skip the test by name where there is no engine, or nothing to make the test's image with."""
    if not engine_answers():
        pytest.skip(f"no Docker engine answers at {ENGINE_URL}")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler, which makes the image of the Docker tests")


@functools.cache
def server_program() -> bytes:
    """A static program that stands for a workspace's server."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "server"
        subprocess.run(["cc", "-static", "-O1", "-o", program, _SOURCE], check=True, capture_output=True)
        return program.read_bytes()


def image_archive(name: str = IMAGE, **config: Any) -> bytes:
    """What `docker load` takes: an image of that one program, with more in its configuration if wanted."""
    layer = _tar({"server": (server_program(), 0o755), "home/jovyan/hello.txt": (b"hello\n", 0o644)})
    settings = {"Cmd": ["/server"], "Env": ["PATH=/", "FROM_IMAGE=1"]} | config
    described = {
        "architecture": "amd64",
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    text = json.dumps(described).encode()
    identity = hashlib.sha256(text).hexdigest()
    manifest = [{"Config": f"{identity}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {f"{identity}.json": text, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    return _tar({path: (content, 0o644) for path, content in files.items()})


async def have_image(docker: aiodocker.Docker, name: str = IMAGE, **config: Any) -> None:
    """Load the test's image unless it is there."""
    with contextlib.suppress(aiodocker.DockerError):
        await docker.images.inspect(name)
        return
    archive = await asyncio.to_thread(image_archive, name, **config)
    await docker.images.import_image(io.BytesIO(archive))


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def profile(**changes: Any) -> Profile:
    """A profile of the test's image."""
    values: dict[str, Any] = {"name": "default", "image": IMAGE, "port": PORT, "home": "/home/jovyan"}
    return Profile(**(values | changes))


def docker_backend(
    folder: Path, hub: str, *, networks: Networks | None = None, own_networks: bool = False, **changes: Any
) -> DockerBackend:
    """A backend for a hub of the test's own; on the default bridge unless it is to make networks."""
    reach = ReachSettings(firewall=False, network_pool=IPv4Network("10.199.0.0/16"))
    values: dict[str, Any] = {
        "profiles": (profile(),),
        "engine_url": ENGINE_URL,
        "pull": "never",
        "reach": reach,
    }
    settings = DockerSettings(hub=hub, data_dir=folder, **(values | changes))
    return DockerBackend(settings, networks=None if own_networks else lambda _: networks or DefaultBridge())


def new_hub() -> str:
    """A name that no other test has."""
    return f"t{uuid.uuid4().hex[:10]}"


async def clean(docker: aiodocker.Docker, hub: str) -> None:
    """Remove everything that carries this hub's name."""
    wanted = marks.filters(**{marks.ORIGIN: hub})
    for container in await docker.containers.list(all=True, filters=wanted):
        with contextlib.suppress(aiodocker.DockerError):
            await container.delete(force=True, v=True)
    for network in await docker.networks.list(filters={"label": f"{marks.ORIGIN}={hub}"}):
        with contextlib.suppress(aiodocker.DockerError):
            await (await docker.networks.get(network["Id"])).delete()
    listed = await docker.volumes.list(filters={"label": [f"{marks.ORIGIN}={hub}"]})
    for volume in listed["Volumes"] or []:
        with contextlib.suppress(aiodocker.DockerError):
            await (await docker.volumes.get(volume["Name"])).delete()


@contextlib.asynccontextmanager
async def deployment(hub: str | None = None) -> AsyncIterator[tuple[aiodocker.Docker, str]]:
    """A client of the engine and a hub's name; all that carries it is gone afterwards."""
    need_engine()
    hub = hub or new_hub()
    engine = Engine(ENGINE_URL, hub)
    await engine.open()
    try:
        await have_image(engine.docker)
        yield engine.docker, hub
    finally:
        await clean(engine.docker, hub)
        await engine.aclose()
