"""The cluster as a process of its own: `python -m tests.support.kube --port N --namespace X --kubeconfig PATH`."""

import argparse
import asyncio
import signal
from pathlib import Path

from tests.support.kube.cluster import FakeCluster


async def serve(options: argparse.Namespace) -> None:
    """Until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with FakeCluster.open(options.namespace, port=options.port, processes=not options.no_processes) as cluster:
        if options.token:
            cluster.give(options.token)
        if options.kubeconfig:
            cluster.kubeconfig(options.kubeconfig, options.token or None)
        print(cluster.url, flush=True)
        await ended.wait()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one; the URL is printed")
    parser.add_argument("--namespace", default="mlhub-workspaces")
    parser.add_argument("--kubeconfig", type=Path, help="written once it answers")
    parser.add_argument("--token", default="", help="of somebody who may do everything, the same after a restart")
    parser.add_argument("--no-processes", action="store_true", help="pods only pretend to run")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
