"""The keys of workspaces whose image brings its own SSH server: each shows, at `/publickey`, the one it lets in.

People's settings of old log in as `limited-user` with such a key, for a forwarded connection to that very workspace.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import asyncssh
import httpx
import structlog

from mlhub_shared.bus import Table
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Endpoint, Phase, WorkspaceRecord
from mlhub_shared.errors import Temporary
from mlhub_shared.tasks import end_tasks

log = structlog.get_logger(__name__)

LOGIN_NAME = "limited-user"

_KINDS = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256")
_FRESH, _AGAIN = 120.0, 5.0
"""Seconds until a key is asked for anew, and at first until one that was not got is, which doubles up to the same."""
_LOOK = 2.5
"""Seconds between two looks for keys that are due."""
_ANSWER = 3.0
"""Seconds that a workspace may take."""
_MOST = 8192
"""Bytes of its answer."""
_AT_ONCE = 64
"""Many of those who do not answer leave room for one who does."""


@dataclass
class _Shown:
    workspace: WorkspaceId
    endpoint: Endpoint
    fingerprint: str | None = None
    due: float = 0
    """Never while it is asked."""
    pause: float = _AGAIN


class OwnKeys:
    """Asks the workspaces, off the path of any login."""

    def __init__(self, records: Table[WorkspaceRecord], clock: Callable[[], float] | None = None) -> None:
        self._records = records
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._shown: dict[str, _Shown] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def showing(self, key: asyncssh.SSHKey) -> list[WorkspaceId]:
        """The running workspaces that show this key."""
        fingerprint = key.get_fingerprint()
        found = (shown.workspace for shown in self._shown.values() if shown.fingerprint == fingerprint)
        return [workspace for workspace in found if self.shows(workspace, fingerprint)]

    def shows(self, workspace: WorkspaceId, fingerprint: str) -> bool:
        """Whether this workspace runs and shows that key."""
        shown = self._shown.get(workspace.name)
        # The record is newer than what follows it.
        return (
            shown is not None and shown.fingerprint == fingerprint and shown.endpoint == self._endpoint(workspace.name)
        )

    async def run(self) -> None:
        """Keep up with the workspaces, for ever."""
        asking: set[asyncio.Task[None]] = set()
        async with httpx.AsyncClient(timeout=_ANSWER, trust_env=False, follow_redirects=False) as client:
            try:
                with self._records.changes() as changes:
                    while True:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(_LOOK):
                                for name in await anext(changes):
                                    self._note(name)
                        self._ask_those_due(client, asking)
            finally:
                await end_tasks(*asking)

    def _endpoint(self, name: str) -> Endpoint | None:
        """Where a running workspace shows its key, if it does at all."""
        record = self._records.value(name)
        return record.endpoint if record and record.spec.own_ssh and record.phase is Phase.READY else None

    def _note(self, name: str) -> None:
        record, endpoint = self._records.value(name), self._endpoint(name)
        if record is None or endpoint is None:
            self._shown.pop(name, None)
        elif (known := self._shown.get(name)) is None or known.endpoint != endpoint:
            self._shown[name] = _Shown(record.workspace, endpoint)

    def _ask_those_due(self, client: httpx.AsyncClient, asking: set["asyncio.Task[None]"]) -> None:
        now = self._clock()
        for shown in self._shown.values():
            if shown.due <= now:
                shown.due = float("inf")
                task = asyncio.ensure_future(self._ask(client, shown))
                asking.add(task)
                task.add_done_callback(asking.discard)

    async def _ask(self, client: httpx.AsyncClient, shown: _Shown) -> None:
        try:
            async with self._slots:
                shown.fingerprint = await _fetch(client, shown.endpoint)
            is_got = shown.fingerprint is not None
        except Temporary as error:
            # Who is in by a key stays while his workspace is too busy to say it again.
            log.debug("own_key.not_got", workspace=shown.workspace.name, error=str(error))
            is_got = False
        shown.due = self._clock() + (_FRESH if is_got else shown.pause)
        shown.pause = _AGAIN if is_got else min(shown.pause * 2, _FRESH)


async def _fetch(client: httpx.AsyncClient, endpoint: Endpoint) -> str | None:
    """The fingerprint of the key that is shown there, None if what is shown is none; Temporary if nobody answers."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    data = b""
    try:
        async with (
            asyncio.timeout(_ANSWER),
            client.stream("GET", f"http://{host}:{endpoint.port}/publickey") as answer,
        ):
            if answer.status_code != 200:
                return None
            async for piece in answer.aiter_raw():
                data += piece
                if len(data) > _MOST:
                    return None
    except (httpx.HTTPError, TimeoutError) as error:
        raise Temporary(str(error) or type(error).__name__) from error
    return _fingerprint(data)


def _fingerprint(data: bytes) -> str | None:
    words = data.split()[:2]
    if len(words) < 2 or words[0].decode(errors="replace") not in _KINDS:
        return None
    try:
        return asyncssh.import_public_key(b" ".join(words)).get_fingerprint()
    except (asyncssh.KeyImportError, ValueError, OverflowError):
        # The last two of keys that are well-formed and have bad numbers.
        return None
