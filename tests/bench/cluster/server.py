"""The fake API server as a process of its own: `python -m tests.bench.cluster.server`.

Its pods only pretend to run, and take as long as it is told. `GET /calls?user=NAME` on its other port says how often a
service account has asked for what since the last time.
"""

import argparse
import asyncio
import signal
from collections import Counter
from pathlib import Path

import yaml
from aiohttp import web

from tests.bench.cluster.place import IMAGE
from tests.support.kube import FakeCluster, Timing
from tests.support.manifests.objects import K8S

_ROLE = K8S / "workspaces" / "rbac.yaml"


async def serve(options: argparse.Namespace) -> None:
    """Until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    rules = next(yaml.safe_load_all(_ROLE.read_text()))["rules"]
    async with FakeCluster.open(processes=False, timing=Timing(start=options.start)) as cluster:
        cluster.kubelet.pulled.add(IMAGE)
        for name, allowed in (("spawner-worker", rules), ("bench", None)):
            cluster.kubeconfig(options.folder / f"{name}.kubeconfig", cluster.token(allowed, name=name))
        runner = web.AppRunner(_control(cluster))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", options.control).start()
        await ended.wait()
        await runner.cleanup()


def _control(cluster: FakeCluster) -> web.Application:
    async def calls(request: web.Request) -> web.Response:
        user = request.query["user"]
        counts = Counter(f"{call.verb} {call.resource}" for call in cluster.requests if call.user.endswith(f":{user}"))
        cluster.forget_requests()
        return web.json_response(counts)

    app = web.Application()
    app.router.add_get("/calls", calls)
    return app


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the kubeconfigs go")
    parser.add_argument("--control", type=int, required=True, help="port that tells of calls")
    parser.add_argument("--start", type=float, required=True, help="seconds from a pod's place to its start")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
