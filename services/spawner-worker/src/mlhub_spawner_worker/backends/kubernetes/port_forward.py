"""The ports of a pod: carried by a program inside as those of every workspace, else by the API itself."""

import asyncio
import contextlib

from mlhub_shared.errors import MLHubError
from mlhub_shared.tasks import end_tasks
from mlhub_spawner_worker.backends.inside import Lost, Place, Said
from mlhub_spawner_worker.backends.inside.link import StreamLink
from mlhub_spawner_worker.backends.inside.loopback import InsideLoopback
from mlhub_spawner_worker.backends.inside.script import NEEDS_PYTHON
from mlhub_spawner_worker.backends.kubernetes.stream import Channels, StreamClient
from mlhub_spawner_worker.entry import LOCALHOST, Caller, EntryError, Link

_PROTOCOL = "v4.channel.k8s.io"
"""The only one that the API has for this."""
_DATA, _FAILURE = 0, 1
"""Numbers of channels."""
_PORT_BYTES = 2
"""Each channel begins with its port."""

_REFUSED_WITHIN = 0.1
"""Seconds for a refusal: the API does not tell when a connection is made."""
_MOST = 128
"""Connections at the same time, as of the program inside."""
_LONGEST_REASON = 200


class PodLoopback(InsideLoopback):
    """A pod's own loopback, in an image without what it takes to carry its connections, too.

    By the API there is no end of input without the end of the connection: who waits for one waits until then.
    """

    def __init__(self, place: Place, ports: "PodPorts") -> None:
        super().__init__(place)
        self._ports = ports
        self._has_python = True

    async def connect(self, port: int, caller: Caller, *, host: str = LOCALHOST) -> Link:
        """Reach a port; EntryError if nothing listens there."""
        if self._has_python or host != LOCALHOST:
            try:
                return await super().connect(port, caller, host=host)
            except EntryError as error:
                if host != LOCALHOST or NEEDS_PYTHON not in str(error):
                    raise
                self._has_python = False
        return await self._ports.connect(port, caller)


class PodPorts:
    """The ports of one pod as the API forwards them, each connection over a WebSocket of its own."""

    def __init__(self, client: StreamClient, pod: str) -> None:
        """`pod` is its path."""
        self._client, self._pod = client, pod
        self._places = asyncio.Semaphore(_MOST)

    async def connect(self, port: int, caller: Caller) -> Link:
        """A connection to one; EntryError if nothing listens there."""
        if self._places.locked():
            raise EntryError(f"the workspace has {_MOST} connections already, and no more can be carried")
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._places)
            streams = PortStreams(await self._forward(port))
            stack.push_async_callback(streams.close)
            await streams.begin()
            return ForwardLink(streams, caller, stack.pop_all())

    async def _forward(self, port: int) -> Channels:
        try:
            query = {"ports": port}
            return await Channels.open(self._client, f"{self._pod}/portforward", query, protocol=_PROTOCOL)
        except MLHubError as error:
            raise EntryError(str(error)) from error


class ForwardLink(StreamLink):
    """A connection to a port."""

    def __init__(self, streams: "PortStreams", caller: Caller, stack: contextlib.AsyncExitStack) -> None:
        """`stack` is closed with it."""
        super().__init__(streams, caller)
        self._stack = stack
        self._begin()

    def close(self) -> None:
        """Close the connection."""
        self.let_go()

    async def wait(self) -> int:
        """Return when it has ended."""
        await self.ended()
        return 0

    async def _run(self) -> None:
        async with self._stack:
            await super()._run()


class PortStreams:
    """Implements Streams."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._to_skip = {_DATA: _PORT_BYTES, _FAILURE: _PORT_BYTES}
        self._first: asyncio.Task[Said | None] | None = None

    async def begin(self) -> None:
        """Wait a moment for a refusal; EntryError if it comes."""
        self._first = asyncio.ensure_future(self._next())
        await asyncio.wait([self._first], timeout=_REFUSED_WITHIN)
        if not self._first.done():
            return
        try:
            said = self._first.result()
        except Lost as error:
            raise EntryError("the connection to the workspace is lost") from error
        if said is None or said.is_error:
            raise EntryError(_reason(said))

    async def read(self) -> Said | None:
        """What the port says, nothing else."""
        first, self._first = self._first, None
        said = await (first or self._next())
        return said if said is not None and not said.is_error else None

    async def write(self, data: bytes) -> None:
        """As one piece."""
        await self._channels.write(_DATA, data)

    async def end_input(self) -> None:
        """There is no way to."""

    async def close(self) -> None:
        """Close the connection."""
        if self._first is not None:
            await end_tasks(self._first)
        await self._channels.close()

    async def _next(self) -> Said | None:
        while (piece := await self._channels.read()) is not None:
            channel, data = piece
            skipped = min(self._to_skip.get(channel, 0), len(data))
            if skipped:
                self._to_skip[channel] -= skipped
            if rest := data[skipped:]:
                return Said(rest, channel == _FAILURE)
        return None


def _reason(said: Said | None) -> str:
    text = said.data.decode(errors="replace") if said is not None else ""
    if "refused" in text:
        return "Connection refused"
    return f"the port can't be reached: {text[:_LONGEST_REASON] or 'the cluster does not say why'}"
