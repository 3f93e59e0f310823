"""The life of one pod on its node."""

import asyncio
import shutil
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.kube.processes import Outcome, Pretence, Program, Running
from tests.support.kube.pulling import pull
from tests.support.kube.resources import Obj
from tests.support.kube.sandbox import Sandbox, expanded
from tests.support.kube.scripts import Script
from tests.support.kube.status import ContainerStatus, PodStatus
from tests.support.kube.store import Stored

if TYPE_CHECKING:
    from tests.support.kube.kubelet import Kubelet

_COMMAND_NOT_FOUND = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    'unable to start container process: error during container init: exec: "{}": executable file not found in $PATH'
)


class Ended(Exception):
    """The pod is over before its container ran."""


class Life:
    """Acts for one pod, from the scheduler to its end; one task at a time."""

    def __init__(self, kubelet: "Kubelet", pod: Stored, script: Script) -> None:
        self.kubelet, self.script = kubelet, script
        self.uid, self.name = pod.uid, pod.name
        self.pod = pod
        self.status = PodStatus(pod.obj)
        self.released = asyncio.Event()
        self.running: Running | None = None
        self.outcome: asyncio.Event = asyncio.Event()
        self.sandbox: Sandbox | None = None
        self.task: asyncio.Task[None] | None = None
        self.is_ending = False

    # What a test and the API ask of it

    def begin(self) -> None:
        """Start it."""
        self._go(self._live())

    def end(self, grace: float) -> None:
        """It has been deleted: end it within so many seconds."""
        if not self.is_ending:
            self.is_ending = True
            self._go(self._terminate(grace))

    def abandon(self) -> None:
        """Its object is gone; what runs goes on for a while."""
        self._go(self._fade())

    def log(self, container: str, *, previous: bool = False) -> Path:
        """File of a container's log."""
        restarts = self._container_status(container).restarts - previous
        return self.kubelet.folder / "logs" / self.uid / f"{container}.{restarts}"

    def publish(self) -> None:
        """Tell the server, unless the node can't be heard or the pod is gone."""
        current = self.kubelet.store.by_uid.get(self.uid)
        if current is None or self.kubelet.scheduler.is_lost:
            return
        self.pod = self.kubelet.update(current, self.status.to_json())

    def assign(self) -> None:
        """To the node, as the scheduler does."""
        current = self.kubelet.store.by_uid.get(self.uid)
        if current is None:
            raise Ended
        self.status.condition("PodScheduled", True)
        spec = {**current.obj["spec"], "nodeName": self.kubelet.node}
        self.pod = self.kubelet.store.replace(current, {**current.obj, "spec": spec, "status": self.status.to_json()})

    def fail(self, reason: str, message: str) -> None:
        """The node gives it up: evicted."""
        self.status.phase, self.status.reason, self.status.message = "Failed", reason, message
        self._go(self._evicted())

    # How it goes

    async def _live(self) -> None:
        with suppress(Ended):
            await self._schedule()
            await asyncio.sleep(self.kubelet.timing.create)
            self.status.accept()
            self.publish()
            await self._mount()
            await self._open()
            await self._initialize()
            await self._run()

    async def _schedule(self) -> None:
        await asyncio.sleep(self.kubelet.timing.schedule)
        told = ""
        while missing := self.held(self.script.unschedulable) or self.kubelet.scheduler.hold(self.pod):
            if missing != told:
                self.kubelet.events.record(
                    self.pod, "FailedScheduling", missing, source="default-scheduler", warning=True
                )
                self.status.condition("PodScheduled", False, "Unschedulable", missing)
                current = self.kubelet.store.by_uid[self.uid]
                self.kubelet.store.replace(current, {**current.obj, "status": self.status.to_json()})
                told = missing
            await self.kubelet.change()
        self.assign()
        text = f"Successfully assigned {self.pod.namespace}/{self.name} to {self.kubelet.node}"
        self.tell("Scheduled", text, source="default-scheduler")

    async def _mount(self) -> None:
        if error := self.held(self.script.mount_error):
            while not self.released.is_set():
                self.tell("FailedMount", f'MountVolume.SetUp failed for volume "pvc" : {error}', warning=True)
                await self.pause(self.kubelet.timing.pull_backoff)

    async def _open(self) -> None:
        self.status.address = self.kubelet.address(self.pod)
        if self.kubelet.processes:
            self.sandbox = self.kubelet.sandbox(self.pod, self.status.address)
            await self.sandbox.open()
            self.status.address = self.sandbox.address

    async def _initialize(self) -> None:
        """Run the init containers that say what to run; the others are taken to end well at once."""
        spec = self.pod.obj["spec"]
        for container, status in zip(spec.get("initContainers") or (), self.status.inits, strict=True):
            await pull(self, container, status)
            outcome = Outcome(0)
            if self.sandbox is not None and container.get("command"):
                self.running = await self._started(container, status)
                status.run(uuid.uuid4().hex)
                self.publish()
                outcome = await self.running.wait()
            status.end(outcome.code)
            if outcome.code:
                self.status.phase = "Failed"
                self.publish()
                raise Ended
        if self.status.inits:
            self.status.condition("Initialized", True)
            for status in self.status.containers:
                status.wait("ContainerCreating")
            self.publish()

    async def _run(self) -> None:
        container, status = self.pod.obj["spec"]["containers"][0], self.status.containers[0]
        while True:
            await pull(self, container, status)
            await self._configured(container, status)
            outcome = await self._container(container, status)
            if not self._starts_again(outcome):
                return
            await self._again(status)

    async def _container(self, container: Obj, status: ContainerStatus) -> Outcome:
        """One run, from its creation to its end."""
        self.tell("Created", f"Container created: {container['name']}", container=container)
        await asyncio.sleep(self.kubelet.timing.start)
        try:
            self.running = await self._started(container, status)
        except Ended as error:
            return await self._refused(container, status, str(error))
        status.run(uuid.uuid4().hex)
        self.status.phase = "Running"
        self.tell("Started", f"Container started: {container['name']}", container=container)
        self.publish()
        ready = asyncio.create_task(self._become_ready())
        try:
            outcome = await self.running.wait()
        finally:
            ready.cancel()
        await self._ended(status, outcome)
        return outcome

    async def _become_ready(self) -> None:
        after = self.kubelet.timing.ready if self.script.ready_after is None else self.script.ready_after
        await self.pause(after)
        self.status.ready(True)
        self.publish()

    async def _ended(self, status: ContainerStatus, outcome: Outcome) -> None:
        """The state comes first, the phase a moment later."""
        if self.sandbox is not None:
            await self.sandbox.kill_all()
        await asyncio.sleep(self.kubelet.timing.notice)
        message = outcome.message or self.script.termination_message
        status.end(outcome.code, outcome.reason, message, number=outcome.signal)
        self.publish()
        if self._starts_again(outcome) and not self.is_ending:
            return
        await asyncio.sleep(self.kubelet.timing.phase_lag)
        self.status.phase = "Failed" if outcome.code else "Succeeded"
        self.status.ready(False, "PodFailed" if outcome.code else "PodCompleted")
        self.publish()
        self.kubelet.free(self.uid)

    def _starts_again(self, outcome: Outcome) -> bool:
        policy = self.pod.obj["spec"]["restartPolicy"]
        return policy == "Always" or (policy == "OnFailure" and outcome.code != 0)

    async def _again(self, status: ContainerStatus) -> None:
        self.status.ready(False, "ContainersNotReady")
        status.last = status.state
        wait = self.kubelet.timing.crash_backoff
        if status.restarts:
            text = f"back-off {wait:.0f}s restarting failed container={status.name} pod={self.name}"
            self.tell("BackOff", text, warning=True)
            status.wait("CrashLoopBackOff", text)
            self.publish()
        await asyncio.sleep(wait)
        status.restarts += 1

    # What may hold it back

    async def _configured(self, container: Obj, status: ContainerStatus) -> None:
        while error := self.held(self.script.config_error) or self.kubelet.config_error(self.pod, container):
            status.wait("CreateContainerConfigError", error)
            self.tell("Failed", f"Error: {error}", container=container, warning=True)
            self.publish()
            await self.pause(self.kubelet.timing.pull_backoff)

    async def _started(self, container: Obj, status: ContainerStatus) -> Running:
        """Ended: it can't be started, for that reason."""
        if error := self.held(self.script.run_error):
            raise Ended(error)
        log = self.log(container["name"])
        if self.script.last_words:
            await asyncio.to_thread(_write, log, self.script.last_words)
        if self.sandbox is None or self.script.exit_code is not None:
            return self._pretended()
        env = self.sandbox.environment(container, self.kubelet.values_from(self.pod, container, self.status))
        argv = [self.sandbox.mapped(expanded(part, env)) for part in self.kubelet.command(container)]
        if shutil.which(argv[0], path=env.get("PATH")) is None:
            raise Ended(_COMMAND_NOT_FOUND.format(argv[0]))
        argv = [*self.sandbox.prefix(container), *argv]
        running = await Program.start(argv, env, self.sandbox.directory(container), log)
        self._schedule_oom(running)
        return running

    def _pretended(self) -> Running:
        running = Pretence(self.script.stop_takes)
        if self.script.exit_code is not None:
            outcome = Outcome(self.script.exit_code)
            asyncio.get_running_loop().call_later(self.script.exit_after, running.kill, outcome)
        self._schedule_oom(running)
        return running

    def _schedule_oom(self, running: Running) -> None:
        if self.script.oom_after is not None:
            asyncio.get_running_loop().call_later(self.script.oom_after, running.kill, Outcome(137, "OOMKilled"))

    async def _refused(self, container: Obj, status: ContainerStatus, why: str) -> Outcome:
        """The container could not even be started."""
        self.status.phase = "Running"
        status.wait("RunContainerError", why)
        self.tell("Failed", f"Error: {why}", container=container, warning=True)
        self.publish()
        await asyncio.sleep(self.kubelet.timing.pull_backoff / 3)
        outcome = Outcome(128, "StartError", why)
        await self._ended(status, outcome)
        return outcome

    # How it ends

    async def _terminate(self, grace: float) -> None:
        if self.running is not None and self.status.phase == "Running":
            await self._stop(self.running, grace)
        elif self.status.is_assigned:
            self.status.phase = "Failed" if self.status.phase == "Pending" else self.status.phase
            self.publish()
        if self.sandbox is not None:
            await self.sandbox.aclose()
        await asyncio.sleep(self.kubelet.timing.removal)
        self.kubelet.finish(self.uid)

    async def _stop(self, running: Running, grace: float) -> None:
        self.tell("Killing", f"Stopping container {self.status.containers[0].name}")
        running.terminate()
        ending = asyncio.ensure_future(running.wait())
        if not (await asyncio.wait({ending}, timeout=grace))[0]:
            running.kill()
        await self._ended(self.status.containers[0], await ending)

    async def _evicted(self) -> None:
        self.status.condition("DisruptionTarget", True, "TerminationByKubelet", self.status.message)
        self.tell("Evicted", self.status.message, warning=True)
        if self.running is not None:
            self.running.kill()
            outcome = await self.running.wait()
            if self.sandbox is not None:
                await self.sandbox.kill_all()
            self.status.containers[0].end(outcome.code)
        self.status.ready(False, "PodFailed")
        self.publish()
        self.kubelet.free(self.uid)

    async def _fade(self) -> None:
        await self.kubelet.heard()
        await asyncio.sleep(self.kubelet.timing.force_lag)
        if self.running is not None:
            self.running.kill()
        if self.sandbox is not None:
            await self.sandbox.aclose()
        self.kubelet.forget(self.uid)

    # Small things

    def _go(self, coroutine: Coroutine[Any, Any, None]) -> None:
        if self.task is not None:
            self.task.cancel()
        self.task = self.kubelet.tasks.create(coroutine)

    def held(self, obstacle: str) -> str:
        """The obstacle, unless it has been lifted."""
        return "" if self.released.is_set() else obstacle

    async def pause(self, seconds: float) -> None:
        """Sleep, unless released meanwhile."""
        if self.released.is_set():
            await asyncio.sleep(min(seconds, self.kubelet.timing.pull))
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self.released.wait(), seconds)

    def tell(
        self, reason: str, message: str, *, source: str = "kubelet", warning: bool = False, container: Obj | None = None
    ) -> None:
        """Write an event, where the node is heard."""
        if self.kubelet.scheduler.is_lost:
            return
        field = f"spec.containers{{{container['name']}}}" if container else ""
        self.kubelet.events.record(self.pod, reason, message, source=source, warning=warning, field=field)

    def _container_status(self, name: str) -> ContainerStatus:
        return next(one for one in (*self.status.containers, *self.status.inits) if one.name == name)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)
