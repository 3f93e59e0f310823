"""The one node of the cluster: what its pods do, and what a test does to them."""

import asyncio
import signal as signals
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlhub_shared.tasks import end_tasks
from tests.support.kube.deletion import DeleteOptions, Deletion
from tests.support.kube.errors import ApiError
from tests.support.kube.events import Recorder
from tests.support.kube.life import Life
from tests.support.kube.processes import Outcome, outcome_of
from tests.support.kube.resources import BY_PLURAL, Obj
from tests.support.kube.sandbox import Addresses, Sandbox
from tests.support.kube.scheduling import Scheduler
from tests.support.kube.scripts import Script, Timing
from tests.support.kube.status import PodStatus
from tests.support.kube.store import Change, Store, Stored, now
from tests.support.kube.tasks import Tasks
from tests.support.workers import FAKE_SERVER

Which = str | Callable[[Obj], bool]
"""A pod's name, or what is true of the pods that are meant."""

_LAST_MOMENTS = 2.0
"""Seconds that what was started in pods has to be reaped."""
_GONE_AFTER = 300
"""Seconds that a pod without a toleration of its own stays on a lost node."""


class Kubelet:
    """Runs pods: scheduler, kubelet and volume controller of a cluster with one node.

    Only the first container of a pod runs, and init containers that have a `command`.
    """

    def __init__(self, store: Store, deletion: Deletion, events: Recorder, folder: Path) -> None:
        self.store, self.events, self.folder = store, events, folder
        self._deletion = deletion
        self.program: list[str] = FAKE_SERVER.split()
        """What every image's entry point is; a pod's `args` follow it, its `command` replaces it."""
        self.images: dict[str, list[str]] = {}
        """Entry points of single images, by the image's name."""
        self.pulled: set[str] = set()
        """Images that the node has."""
        self.root_images: set[str] = set()
        """Images whose user is root: refused where a pod says runAsNonRoot."""
        self.processes = True
        """False: nothing really runs; pods are as the scripts say, at an address that `address` gives."""
        self.binds_volumes = True
        """False: claims stay Pending, until it is True and `nudge` is called."""
        self.timing = Timing()
        self.tasks = Tasks()
        self.scheduler = Scheduler(store)
        self.node = "node-1"
        self.puller = asyncio.Lock()
        """A node pulls one image at a time."""
        self.lives: dict[str, Life] = {}
        """By uid of the pod."""
        self.addresses = Addresses()
        self.pretended_address = "127.0.0.1"
        """Of all pods where nothing really runs."""
        self.make_sandbox: Callable[[Obj, str, Path, Path], Sandbox] = Sandbox
        self._scripts: list[tuple[Which, Script]] = []
        self._changed = asyncio.Event()
        self._heard = asyncio.Event()
        self._heard.set()
        store.listen(self._on_change)
        store.add(BY_PLURAL["nodes"], self._node(is_ready=True))

    # What a test says

    def script(self, which: Which, script: Script) -> Script:
        """What happens to a pod that is created from now on; of several, the last that fits."""
        self._scripts.append((which, script))
        return script

    def release(self, name: str) -> None:
        """Whatever a script holds this pod back with is over."""
        self._life(name).released.set()
        self.nudge()

    def kill(self, name: str, code: int | None = None, *, signal: int = signals.SIGKILL, oom: bool = False) -> None:
        """End a pod's container, with this exit code, or by a signal, or because of its memory."""
        running = self._life(name).running
        assert running is not None, f"{name} does not run"
        if oom:
            running.kill(Outcome(137, "OOMKilled"))
        else:
            running.kill(outcome_of(-signal) if code is None else Outcome(code))

    def evict(
        self, name: str, message: str = "The node was low on resource: memory.", *, reason: str = "Evicted"
    ) -> None:
        """The node gives a pod up."""
        self._life(name).fail(reason, message)

    def restart_node(self) -> None:
        """The node is started anew: what its containers ran is gone, and its runtime says that it does not know how."""
        for life in self.lives.values():
            if life.running is not None:
                life.running.kill(Outcome(255, "Unknown"))

    def room(self, **amounts: float) -> None:
        """What the node has from now on: `cpu`, `memory` (bytes), `pods`, `**{"nvidia.com/gpu": 2}`."""
        self.scheduler.room.update(amounts)
        self.nudge()

    def lose_node(self) -> None:
        """The kubelet goes silent: what runs goes on, and nobody hears of it; a delete stays without effect."""
        self.scheduler.is_lost = True
        self._heard.clear()
        self.tasks.create(self._notice_silence())

    def bring_back_node(self) -> None:
        """It is heard again, and does what has been asked of it meanwhile."""
        self.scheduler.is_lost = False
        self._heard.set()
        self._set_node(is_ready=True)
        for life in list(self.lives.values()):
            current = self.store.by_uid.get(life.uid)
            if current is None:
                continue
            if "running" in life.status.containers[0].state:
                life.status.ready(True)
            life.publish()
            if current.is_going:
                life.end(current.obj["metadata"]["deletionGracePeriodSeconds"])
        self.nudge()

    def nudge(self) -> None:
        """Have the scheduler and the volume controller look again."""
        self._wake()
        for claim in self.store.all("persistentvolumeclaims"):
            self._bind_soon(claim)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def home(self, name: str) -> Path:
        """Directory that is HOME of a pod's programs."""
        sandbox = self._life(name).sandbox
        assert sandbox is not None
        return sandbox.home

    # What lives ask

    async def change(self) -> None:
        """Until something has changed that may make room."""
        await self._changed.wait()

    async def heard(self) -> None:
        """Until the node is heard."""
        await self._heard.wait()

    def reachable(self) -> None:
        """500 where the node is lost: what the server asks of the kubelet itself does not get through."""
        if self.scheduler.is_lost:
            text = f'Get "https://{self.node}:10250/": dial tcp: connect: no route to host'
            raise ApiError(500, "InternalError", f"Internal error occurred: {text}")

    def address(self, pod: Stored) -> str:
        """For a new pod."""
        return self.addresses.take() if self.processes else self.pretended_address

    def sandbox(self, pod: Stored, address: str) -> Sandbox:
        """For a new pod."""
        folder = self.folder / "pods" / pod.uid
        return self.make_sandbox(pod.obj, address, folder, self.folder / "volumes" / pod.namespace)

    def command(self, container: Obj) -> list[str]:
        """What a container runs."""
        entry = container.get("command") or self.images.get(container["image"], self.program)
        return [*entry, *(container.get("args") or ())]

    def config_error(self, pod: Stored, container: Obj) -> str:
        """Why a container can't be created."""
        context = (pod.obj["spec"].get("securityContext") or {}) | (container.get("securityContext") or {})
        if context.get("runAsNonRoot") and "runAsUser" not in context and container["image"] in self.root_images:
            named = f'pod: "{pod.name}_{pod.namespace}({pod.uid})", container: {container["name"]}'
            return f"container has runAsNonRoot and image will run as root ({named})"
        for one in container.get("env") or ():
            for kind, plural in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
                source = (one.get("valueFrom") or {}).get(kind)
                if source and not source.get("optional") and not self.store.get(plural, pod.namespace, source["name"]):
                    return f'{plural[:-1]} "{source["name"]}" not found'
        return ""

    def values_from(self, pod: Stored, container: Obj, status: PodStatus) -> dict[str, str]:
        """What `valueFrom` finds, by the variable's name."""
        found = {}
        for one in container.get("env") or ():
            if source := one.get("valueFrom"):
                found[one["name"]] = self._value(pod, source, status)
        return found

    def update(self, current: Stored, status: Obj) -> Stored:
        """Store a pod's status."""
        return self.store.replace(current, {**current.obj, "status": status})

    def free(self, uid: str) -> None:
        """A pod needs its room no more."""
        if self.scheduler.free(uid):
            self._wake()

    def finish(self, uid: str) -> None:
        """A deleted pod has ended."""
        self.forget(uid)
        if current := self.store.by_uid.get(uid):
            self._deletion.finish(current)

    def forget(self, uid: str) -> None:
        """Nothing is left of a pod."""
        self.lives.pop(uid, None)
        self.free(uid)

    async def aclose(self) -> None:
        """End everything that runs."""
        await end_tasks(*(life.task for life in self.lives.values() if life.task is not None))
        for life in list(self.lives.values()):
            if life.sandbox is not None:
                await life.sandbox.aclose()
            if life.running is not None:
                life.running.kill()
                await life.running.wait()
        await self.tasks.end(_LAST_MOMENTS)

    # How it hears of changes

    def _on_change(self, change: Change) -> None:
        plural = change.now.resource.plural
        if plural == "pods":
            asyncio.get_running_loop().call_soon(self._pod_changed, change)
        elif plural == "persistentvolumeclaims":
            asyncio.get_running_loop().call_soon(self._claim_changed, change)

    def _pod_changed(self, change: Change) -> None:
        pod = change.now
        if change.type == "ADDED":
            life = self.lives[pod.uid] = Life(self, pod, self._script(pod))
            life.begin()
            return
        known = self.lives.get(pod.uid)
        if known is None:
            return
        if change.type == "DELETED":
            known.abandon()
        elif pod.is_going and not self.scheduler.is_lost:
            known.end(pod.obj["metadata"]["deletionGracePeriodSeconds"])

    def _script(self, pod: Stored) -> Script:
        for which, script in reversed(self._scripts):
            if which == pod.name if isinstance(which, str) else which(pod.obj):
                return script
        return Script()

    def _claim_changed(self, change: Change) -> None:
        if change.type == "ADDED":
            self._bind_soon(change.now)
        self._wake()

    def _bind_soon(self, claim: Stored) -> None:
        if self.binds_volumes and claim.obj["status"]["phase"] == "Pending":
            asyncio.get_running_loop().call_later(self.timing.bind, self._bind, claim.uid)

    def _bind(self, uid: str) -> None:
        claim = self.store.by_uid.get(uid)
        if claim is None or claim.obj["status"]["phase"] != "Pending":
            return
        spec = {**claim.obj["spec"], "volumeName": f"pvc-{uid}"}
        capacity = spec.get("resources", {}).get("requests", {})
        status = {"phase": "Bound", "accessModes": spec.get("accessModes", []), "capacity": capacity}
        self.store.replace(claim, {**claim.obj, "spec": spec, "status": status})

    async def _notice_silence(self) -> None:
        await asyncio.sleep(self.timing.node_notice)
        if not self.scheduler.is_lost:
            return
        self._set_node(is_ready=False)
        for life in list(self.lives.values()):
            current = self.store.by_uid.get(life.uid)
            if current is None or not life.status.is_assigned:
                continue
            life.status.ready(False, "NodeNotReady")
            self.events.record(current, "NodeNotReady", "Node is not ready", source="node-controller", warning=True)
            self.update(current, life.status.to_json())
            self.tasks.create(self._taint_manager(life, _patience(current.obj["spec"])))

    async def _taint_manager(self, life: Life, seconds: float) -> None:
        await asyncio.sleep(seconds)
        current = self.store.by_uid.get(life.uid)
        if current is None or not self.scheduler.is_lost:
            return
        why = "Taint manager: deleting due to NoExecute taint"
        life.status.condition("DisruptionTarget", True, "DeletionByTaintManager", why)
        current = self.update(current, life.status.to_json())
        self.events.record(current, "TaintManagerEviction", f"Marking for deletion Pod {current.namespace}/{life.name}")
        self._deletion.delete(current, DeleteOptions())

    def _set_node(self, *, is_ready: bool) -> None:
        node = self.store.get("nodes", "", self.node)
        assert node is not None
        self.store.replace(node, {**node.obj, "status": self._node(is_ready=is_ready)["status"]})

    def _node(self, *, is_ready: bool) -> Obj:
        reason = "KubeletReady" if is_ready else "NodeStatusUnknown"
        status = "True" if is_ready else "Unknown"
        ready = {"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": now()}
        return {"metadata": {"name": self.node, "labels": self.scheduler.labels}, "status": {"conditions": [ready]}}

    def _value(self, pod: Stored, source: dict[str, Any], status: PodStatus) -> str:
        if field := source.get("fieldRef"):
            path = field["fieldPath"]
            known = {
                "metadata.name": pod.name,
                "metadata.namespace": pod.namespace,
                "metadata.uid": pod.uid,
                "status.podIP": status.address,
                "status.hostIP": "127.0.0.1",
                "spec.nodeName": self.node,
            }
            return known.get(path, "")
        for kind, plural in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
            if reference := source.get(kind):
                found = self.store.get(plural, pod.namespace, reference["name"])
                data = {**found.obj.get("stringData", {}), **found.obj.get("data", {})} if found else {}
                return str(data.get(reference["key"], ""))
        return ""

    def life(self, name: str) -> Life | None:
        """Of the latest pod of this name, if it is there."""
        return next((life for life in reversed(self.lives.values()) if life.name == name), None)

    def _life(self, name: str) -> Life:
        life = self.life(name)
        assert life is not None, f"no pod {name}"
        return life


def _patience(spec: Obj) -> float:
    """How long a pod tolerates a lost node, in seconds."""
    for one in spec.get("tolerations") or ():
        if one.get("key") in {"node.kubernetes.io/unreachable", None} and one.get("effect") in {"NoExecute", None}:
            return float(one.get("tolerationSeconds", 1e9))
    return float(_GONE_AFTER)
