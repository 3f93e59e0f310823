"""A worker's backend in a process of its own: how much larger an inventory makes it at most, in kilobytes."""

import asyncio
import sys
from pathlib import Path

from tests.support.kube_backend import kubernetes_backend


def peak() -> int:
    """Kilobytes of this process at most so far; the one by getrusage is its parent's at first."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


async def main(kubeconfig: Path, hub: str) -> None:
    """Print how many were found, and the growth."""
    backend = kubernetes_backend(kubeconfig, hub)
    await backend.open()
    before = peak()
    found = await backend.inventory()
    sys.stdout.write(f"{len(found)} {peak() - before}\n")
    await backend.aclose()


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
