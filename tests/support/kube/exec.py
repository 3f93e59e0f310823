"""`pods/exec` over a WebSocket: the protocols v4 and v5, and real programs."""

import asyncio
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from tests.support.kube.errors import ApiError, bad_request
from tests.support.kube.kubelet import Kubelet
from tests.support.kube.life import Life
from tests.support.kube.processes import outcome_of
from tests.support.kube.resources import Obj
from tests.support.kube.store import Stored
from tests.support.kube.terminal import STDERR, STDIN, STDOUT, Attached, Pipes, Terminal
from tests.support.kube.verbs import Place, Verbs

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
_RESULT, _RESIZE, _CLOSE = 3, 4, 255
_YES = {"true", "True", "1"}
_LAST_OUTPUT = 1.0
"""Seconds that a program's children may go on writing once it has ended."""


@dataclass(frozen=True)
class Wanted:
    """What a request wants to run, and how."""

    container: Obj
    command: list[str]
    channels: tuple[int, ...]
    tty: bool
    protocol: str


class Exec:
    """Runs programs in pods."""

    def __init__(self, kubelet: Kubelet, verbs: Verbs) -> None:
        self._kubelet, self._verbs = kubelet, verbs

    async def serve(self, request: web.Request, place: Place) -> web.StreamResponse:
        """Run one, and be its terminal."""
        pod = self._verbs.found(place)
        wanted = _wanted(request, pod)
        life = running_life(self._kubelet, pod, wanted.container["name"])
        ws = web.WebSocketResponse(protocols=(wanted.protocol,), max_msg_size=0)
        await ws.prepare(request)
        for channel in (STDOUT, STDERR):
            if channel in wanted.channels:
                await ws.send_bytes(bytes([channel]))
        try:
            program = await self._start(life, wanted)
        except OSError as error:
            await _tell(ws, _not_started(wanted.command, str(error)))
        else:
            await _Session(self._kubelet, ws, program, wanted).run()
        await ws.close()
        return ws

    async def _start(self, life: Life, wanted: Wanted) -> Attached:
        sandbox = life.sandbox
        if sandbox is None:
            raise OSError("nothing really runs in this pod")
        values = self._kubelet.values_from(life.pod, wanted.container, life.status)
        env = sandbox.environment(wanted.container, values)
        command = [sandbox.mapped(part) for part in wanted.command]
        if shutil.which(command[0], path=env.get("PATH")) is None:
            raise FileNotFoundError(f'exec: "{command[0]}": executable file not found in $PATH')
        # It is its own session and group, as a runtime makes it.
        argv = [*sandbox.prefix(wanted.container), "setsid", *(["--ctty"] if wanted.tty else []), "--", *command]
        cwd = sandbox.directory(wanted.container)
        if wanted.tty:
            return await Terminal.start(argv, env, cwd)
        return await Pipes.start(argv, env, cwd, wanted.channels)


class _Session:
    """Between one WebSocket and one program."""

    def __init__(self, kubelet: Kubelet, ws: web.WebSocketResponse, program: Attached, wanted: Wanted) -> None:
        self._kubelet, self._ws, self._program, self._wanted = kubelet, ws, program, wanted

    async def run(self) -> None:
        """Until the program has ended, or the client has gone: then the program goes on."""
        outputs = [asyncio.ensure_future(self._pump(channel)) for channel in self._program.channels]
        feeding = asyncio.ensure_future(self._feed())
        ending = asyncio.ensure_future(self._program.process.wait())
        try:
            await asyncio.wait({ending, feeding}, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                if outputs:
                    await asyncio.wait(outputs, timeout=_LAST_OUTPUT)
                await _tell(self._ws, _result(self._wanted.command, ending.result()))
        finally:
            for task in (*outputs, feeding, ending):
                task.cancel()
            self._kubelet.tasks.create(self._leave())

    async def _leave(self) -> None:
        """What is not connected any more reads the end of its input, and may write all it likes."""
        try:
            await self._program.end_input()
            await asyncio.gather(*(self._drain(channel) for channel in self._program.channels))
            await self._program.process.wait()
        finally:
            self._program.close()

    async def _drain(self, channel: int) -> None:
        while await self._program.read(channel):
            pass

    async def _pump(self, channel: int) -> None:
        with suppress(ConnectionError):
            while data := await self._program.read(channel):
                await self._ws.send_bytes(bytes([channel]) + data)

    async def _feed(self) -> None:
        async for message in self._ws:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == STDIN and data and STDIN in self._wanted.channels:
                await self._program.write(data)
            elif channel == _RESIZE and self._wanted.tty:
                size = json.loads(data)
                self._program.resize(size["Height"], size["Width"])
            elif channel == _CLOSE and self._wanted.protocol == V5 and data[:1] == bytes([STDIN]):
                await self._program.end_input()


def running_life(kubelet: Kubelet, pod: Stored, container: str) -> Life:
    """The pod as its node runs it; refused where the container does not."""
    phase = pod.obj["status"].get("phase")
    if phase in {"Succeeded", "Failed"}:
        raise bad_request(f"cannot exec into a container in a completed pod; current phase is {phase}")
    if "nodeName" not in pod.obj["spec"]:
        raise bad_request(f"pod {pod.name} does not have a host assigned")
    kubelet.reachable()
    life = kubelet.lives.get(pod.uid)
    state = next((one.state for one in life.status.containers if one.name == container), {}) if life else {}
    if life is None or "running" not in state:
        message = f'Internal error occurred: unable to upgrade connection: container not found ("{container}")'
        raise ApiError(500, "InternalError", message)
    return life


def _wanted(request: web.Request, pod: Stored) -> Wanted:
    query = request.query
    offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    protocol = next((one for one in offered if one in {V4, V5}), None)
    if request.headers.get("Upgrade", "").lower() != "websocket" or protocol is None:
        raise bad_request(f"unable to upgrade: no supported protocol among {offered}")
    command = query.getall("command", [])
    if not command:
        raise bad_request("you must specify at least 1 command for the container")
    tty = query.get("tty") in _YES
    names = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR}
    channels = tuple(channel for name, channel in names.items() if query.get(name) in _YES)
    if tty and STDERR in channels:
        raise bad_request("tty and stderr cannot both be true")
    if not channels:
        raise bad_request("you must specify at least one of stdin, stdout, stderr")
    containers = {one["name"]: one for one in pod.obj["spec"]["containers"]}
    name = query.get("container") or next(iter(containers))
    if name not in containers:
        raise bad_request(f"container {name} is not valid for pod {pod.name}")
    return Wanted(containers[name], command, channels, tty, protocol)


async def _tell(ws: web.WebSocketResponse, result: Obj) -> None:
    with suppress(ConnectionError):
        await ws.send_bytes(bytes([_RESULT]) + json.dumps(result).encode())


def _result(command: list[str], returned: int) -> Obj:
    code = outcome_of(returned).code
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: error executing command {command}, exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _not_started(command: list[str], why: str) -> Obj:
    text = f"error executing command in container: failed to exec in container: failed to start exec: {why}: unknown"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {text}",
        "reason": "InternalError",
        "details": {"causes": [{"message": f"{text} ({command})"}]},
        "code": 500,
    }
