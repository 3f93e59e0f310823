"""`pods/log`."""

import asyncio
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from tests.support.kube.errors import bad_request
from tests.support.kube.kubelet import Kubelet
from tests.support.kube.resources import Obj
from tests.support.kube.store import Stored


async def read_log(kubelet: Kubelet, pod: Stored, params: Mapping[str, str]) -> web.Response:
    """What a container has written."""
    if "nodeName" not in pod.obj["spec"]:
        return web.Response(status=204)
    kubelet.reachable()
    container = _container(pod, params.get("container", ""))
    life = kubelet.lives.get(pod.uid)
    if life is None:
        raise bad_request(f'container "{container}" in pod "{pod.name}" is terminated')
    status = _status(pod.obj, container)
    previous = params.get("previous") in {"true", "True"}
    if previous and not status.get("restartCount"):
        raise bad_request(f'previous terminated container "{container}" in pod "{pod.name}" not found')
    if (waiting := status["state"].get("waiting")) and not status.get("restartCount"):
        why = waiting["reason"]
        if why in {"ErrImagePull", "ImagePullBackOff"}:
            why = "trying and failing to pull image"
        raise bad_request(f'container "{container}" in pod "{pod.name}" is waiting to start: {why}')
    lines = int(params["tailLines"]) if "tailLines" in params else None
    data = await asyncio.to_thread(_tail, life.log(container, previous=previous), lines)
    if "limitBytes" in params:
        data = data[: int(params["limitBytes"])]
    return web.Response(body=data, headers={"Content-Type": "text/plain"})


def _container(pod: Stored, name: str) -> str:
    spec = pod.obj["spec"]
    names = [one["name"] for one in (*spec["containers"], *(spec.get("initContainers") or ()))]
    if not name and len(spec["containers"]) > 1:
        told = " ".join(names)
        raise bad_request(f"a container name must be specified for pod {pod.name}, choose one of: [{told}]")
    name = name or names[0]
    if name not in names:
        raise bad_request(f"container {name} is not valid for pod {pod.name}")
    return name


def _status(pod: Obj, container: str) -> Obj:
    status = pod["status"]
    for one in (*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())):
        if one["name"] == container:
            return dict(one)
    return {"state": {"waiting": {"reason": "ContainerCreating"}}}


def _tail(path: Path, lines: int | None) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        return b"".join(deque(file, lines))
