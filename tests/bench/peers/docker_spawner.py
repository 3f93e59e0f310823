"""The stock JupyterHub with DockerSpawner, in an environment of its own."""

import asyncio
import json
import secrets
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from tests.bench.bench import NotAvailableError
from tests.bench.processes import Child
from tests.bench.rest import HubClient
from tests.support.ports import free_port

VERSION = "14.0.0"
_CONFIG = Path(__file__).with_name("docker_spawner_config.py")
_ROOT = Path(__file__).parents[3]
_PATIENCE = 180


async def install(folder: Path) -> str:
    """The Python that has it, beside the JupyterHub that ours is built on; NotAvailableError says why there is none."""
    python, wanted = folder / "bin" / "python", [f"dockerspawner=={VERSION}", f"jupyterhub=={version('jupyterhub')}"]
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text() == " ".join(wanted):
        return str(python)
    await _uv("venv", "--clear", "--python", sys.executable, str(folder))
    await _uv("pip", "install", "--python", str(python), *wanted)
    stamp.write_text(" ".join(wanted))
    return str(python)


async def _uv(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *("scripts/uv", *arguments, "--quiet"),
        cwd=_ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            _, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NotAvailableError(f"uv {arguments[0]} was not done within {_PATIENCE} s") from None
    if process.returncode != 0:
        raise NotAvailableError(f"uv {arguments[0]}: {errors.decode(errors='replace').strip()[-200:]}")


class DockerSpawnerHub(Child):
    """`jupyterhub` as its makers ship it, but for what makes the spawner use our image and network."""

    def __init__(
        self,
        folder: Path,
        *,
        python: str,
        engine: str,
        image: str,
        network: str,
        prefix: str,
        labels: Mapping[str, str],
        chp: Path | None,
    ) -> None:
        self.token = secrets.token_hex(32)
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        super().__init__(
            "docker-spawner",
            [python, "-m", "jupyterhub", "-f", str(_CONFIG)],
            folder,
            {
                "DOCKER_HOST": engine,
                "BENCH_IMAGE": image,
                "BENCH_NETWORK": network,
                "BENCH_PREFIX": prefix,
                "BENCH_LABELS": json.dumps(dict(labels)),
                "BENCH_HUB_PORT": str(port),
                "BENCH_PUBLIC_PORT": str(free_port()),
                "BENCH_PROXY_API_PORT": str(free_port()),
                "BENCH_TOKEN": self.token,
                "BENCH_CHP": str(chp or ""),
            },
        )

    def client(self) -> HubClient:
        """A client with every right that spawning needs."""
        return HubClient(self.url, self.token)
