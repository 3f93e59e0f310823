"""A port of a workspace that the client listens on (`ssh -R`)."""

import asyncio
import contextlib

import asyncssh
import structlog

from mlhub_spawner_worker.attach.forward import Forward
from mlhub_spawner_worker.attach.session import Keep
from mlhub_spawner_worker.entry import Accept, EntryError, Listener, Loopback

log = structlog.get_logger(__name__)


class Listening(asyncssh.SSHListener):
    """What asyncssh closes when the client asks for it, or goes."""

    def __init__(self, connection: asyncssh.SSHServerConnection, host: str, port: int, keep: Keep) -> None:
        super().__init__()
        self._connection, self._host, self._port, self._keep = connection, host, port, keep
        self._listener: Listener

    @classmethod
    async def open(
        cls, loopback: Loopback, connection: asyncssh.SSHServerConnection, host: str, port: int, keep: Keep
    ) -> "Listening | None":
        """Listen; None if that can't be."""
        listening = cls(connection, host, port, keep)
        try:
            listening._listener = await loopback.listen(port, listening._arrived)
        except EntryError:
            return None
        except Exception:  # whatever it was: asyncssh would end the whole connection
            log.exception("attach.not_listening", port=port)
            return None
        keep(listening._listener.wait())
        if connection.is_closed():
            listening.close()
        return listening

    def get_port(self) -> int:
        """The port that it is."""
        return self._listener.port

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()

    async def wait_closed(self) -> None:
        """Return once it does not."""
        await self._listener.wait()

    def _arrived(self, accept: Accept, origin: tuple[str, int]) -> asyncio.Task[None]:
        return self._keep(self._bring(accept, origin))

    async def _bring(self, accept: Accept, origin: tuple[str, int]) -> None:
        with contextlib.suppress(EntryError):
            forward = await Forward.take(accept)
            try:
                await self._connection.create_connection(
                    lambda: forward, self._host, self._port or self.get_port(), *origin
                )
            except (asyncssh.Error, OSError):
                forward.connection_lost(None)
            await forward.run()
