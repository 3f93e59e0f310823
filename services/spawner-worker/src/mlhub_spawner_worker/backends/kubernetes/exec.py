"""The way into a running pod: what the Kubernetes API gives for it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlhub_spawner_worker.backends.inside import InsideEntry, Lost, Said
from mlhub_spawner_worker.backends.kubernetes import exec_stage
from mlhub_spawner_worker.backends.kubernetes.port_forward import PodLoopback, PodPorts
from mlhub_spawner_worker.backends.kubernetes.refusals import ApiAway
from mlhub_spawner_worker.backends.kubernetes.stream import Channels, StreamClient
from mlhub_spawner_worker.entry import EntryError

_PROTOCOL = "v5.channel.k8s.io"
"""The first in which input has an end."""
_INPUT, _OUTPUT, _ERRORS, _RESULT, _SIZE, _CLOSE = 0, 1, 2, 3, 4, 255
"""Numbers of channels."""

_DO_WITHIN = 10.0
"""Seconds for a short command."""
_LONGEST = 600
"""Bytes of what the API says of a failure."""
_LONGEST_RESULT = 64 * 1024


class PodEntry(InsideEntry):
    """How to enter a pod."""

    def __init__(self, place: "KubernetesPlace", *, home: str | None) -> None:
        """Programs start in `home`, if it is there; None: where the image says."""
        super().__init__(place, home=home, loopback=PodLoopback(place, place.ports))


class KubernetesPlace:
    """Implements Place."""

    def __init__(self, client: StreamClient, namespace: str, pod: str, container: str = "workspace") -> None:
        self._client, self._pod, self._container = client, f"/api/v1/namespaces/{namespace}/pods/{pod}", container
        self.ports = PodPorts(client, self._pod)

    async def start(self, command: Sequence[str], environment: Mapping[str, str], *, has_terminal: bool) -> "PodExec":
        """Start it, with its streams over a WebSocket, by a script that it gets its arguments from."""
        text = exec_stage.text(command, environment)
        started = PodExec(await self._open(exec_stage.script(text), stdin=True, tty=has_terminal))
        try:
            await started.be_told(text)
        except BaseException:
            await started.close()
            raise
        return started

    async def do(self, command: Sequence[str]) -> None:
        """Run it, and stay until it has ended: the API may not have begun when it takes the call."""
        doing = PodExec(await self._open(command, stdin=False, tty=False))
        try:
            async with asyncio.timeout(_DO_WITHIN):
                while await doing.read() is not None:
                    pass
        except (Lost, TimeoutError) as error:
            raise ApiAway("The Kubernetes API does not tell what became of it") from error
        finally:
            await doing.close()

    async def _open(self, command: Sequence[str], *, stdin: bool, tty: bool) -> Channels:
        query = {
            "container": self._container,
            "command": list(command),
            "stdin": stdin,
            "stdout": True,
            "stderr": not tty,
            "tty": tty,
        }
        return await Channels.open(self._client, f"{self._pod}/exec", query, protocol=_PROTOCOL)


class PodExec:
    """Implements Exec."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._status: int | None = None

    async def be_told(self, text: bytes) -> None:
        """Have the script become what `text` says."""
        said = b""
        while not said.endswith(exec_stage.READY):
            next_ = await self.read()
            if next_ is None or len(said) > _LONGEST:
                reason = said.decode(errors="replace").strip()
                raise EntryError(reason or "nothing can be run in this workspace")
            said += next_.data
        await self.write(text)

    async def read(self) -> Said | None:
        """The next piece of output; why it could not be run, too, as an error of its own."""
        while (piece := await self._channels.read()) is not None:
            channel, data = piece
            if channel in (_OUTPUT, _ERRORS):
                return Said(data, channel == _ERRORS)
            if channel == _RESULT:
                self._status, reason = _understood(data)
                if reason:
                    return Said(reason, is_error=True)
        return None

    async def write(self, data: bytes) -> None:
        """As one piece."""
        await self._channels.write(_INPUT, data)

    async def end_input(self) -> None:
        """As this protocol has it."""
        await self._channels.write(_CLOSE, bytes([_INPUT]))

    async def resize(self, columns: int, rows: int) -> None:
        """As this protocol has it."""
        try:
            await self._channels.write(_SIZE, json.dumps({"Width": columns, "Height": rows}).encode())
        except Lost as error:
            raise ApiAway("The connection to the workspace is lost") from error

    async def status(self) -> int | None:
        """As the API has told it."""
        return self._status

    async def ending(self) -> int | None:
        """The same: it is told before the streams end."""
        return self._status

    async def close(self) -> None:
        """Leave; the program stays."""
        await self._channels.close()


def _understood(result: bytes) -> tuple[int | None, bytes]:
    """The status it ended with, None if that is not known, and what the API says of its failure."""
    told: Any = None
    try:
        told = json.loads(result[:_LONGEST_RESULT])
        if told["status"] == "Success":
            return 0, b""
        if told["reason"] == "NonZeroExitCode":
            causes = told["details"]["causes"]
            return int(next(cause["message"] for cause in causes if cause["reason"] == "ExitCode")), b""
        return None, f"{told['message']}\n".encode()[:_LONGEST]
    except (ValueError, LookupError, TypeError, StopIteration):
        return None, b"the cluster does not say how it ended\n"
