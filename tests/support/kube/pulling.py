"""Pulling an image: what the node tells of it, and how it fails."""

import asyncio
from typing import TYPE_CHECKING

from tests.support.kube.resources import Obj
from tests.support.kube.scripts import pull_message
from tests.support.kube.status import ContainerStatus

if TYPE_CHECKING:
    from tests.support.kube.life import Life


async def pull(life: "Life", container: Obj, status: ContainerStatus) -> None:
    """Have a container's image, however often it takes."""
    image = container["image"]
    if life.script.invalid_image:
        status.wait("InvalidImageName", f'Failed to apply default image tag "{image}": invalid reference format')
        life.tell("InspectFailed", status.state["waiting"]["message"], container=container, warning=True)
        life.publish()
        await asyncio.get_running_loop().create_future()
    tries = 0
    while await _fails(life, container, status, tries):
        tries += 1


async def _fails(life: "Life", container: Obj, status: ContainerStatus, tries: int) -> bool:
    image, node = container["image"], life.kubelet
    policy, is_here = container["imagePullPolicy"], image in node.pulled
    error = life.held(life.script.pull_error)
    if error and life.script.pull_fails is not None and tries >= life.script.pull_fails:
        error = ""
    if policy == "Never" and not is_here:
        status.wait("ErrImageNeverPull", f'Container image "{image}" is not present with pull policy of Never')
        life.tell("ErrImageNeverPull", status.state["waiting"]["message"], container=container, warning=True)
        life.publish()
        await asyncio.get_running_loop().create_future()
    if is_here and policy == "IfNotPresent" and not error and life.script.pull is None:
        text = f'Container image "{image}" already present on machine and can be accessed by the pod'
        life.tell("Pulled", text, container=container)
        return False
    life.tell("Pulling", f'Pulling image "{image}"', container=container)
    loop = asyncio.get_running_loop()
    asked = loop.time()
    async with node.puller:
        began = loop.time()
        await life.pause(node.timing.pull if life.script.pull is None else life.script.pull)
    if error:
        await _failed(life, container, status, pull_message(error, image))
        return True
    node.pulled.add(image)
    took, waited = (f"{(loop.time() - since) * 1000:.0f}ms" for since in (began, asked))
    text = f'Successfully pulled image "{image}" in {took} ({waited} including waiting). Image size: 3472315 bytes.'
    life.tell("Pulled", text, container=container)
    return False


async def _failed(life: "Life", container: Obj, status: ContainerStatus, why: str) -> None:
    image = container["image"]
    status.wait("ErrImagePull", why)
    life.tell("Failed", f'Failed to pull image "{image}": {why}', container=container, warning=True)
    life.tell("Failed", "Error: ErrImagePull", container=container, warning=True)
    life.publish()
    backoff = life.kubelet.timing.pull_backoff
    await life.pause(backoff / 3)
    cause = "" if life.script.pull_says_less else f": ErrImagePull: {why}"
    status.wait("ImagePullBackOff", f'Back-off pulling image "{image}"{cause}')
    life.tell("BackOff", f'Back-off pulling image "{image}"', container=container)
    life.tell("Failed", "Error: ImagePullBackOff", container=container, warning=True)
    life.publish()
    await life.pause(backoff)
