"""Events of refused logins and denied accesses: the first at once, those that follow it as a sum once a minute."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.message import new_id
from mlhub_ssh_gateway.admission import origin_of

_GATHERED = 60.0
"""Seconds between two events of one kind about the same."""
_LOOK = 5.0
"""Seconds between two looks for sums that are due."""
_MOST = 1000
"""Different ones in that time; all beyond are told as one, so that no flood fills the audit stream."""
_SELF = "service:ssh-gateway"


@dataclass
class _Sum:
    latest: Event
    since: float
    count: int = 0
    """Not yet told."""


class Refusals:
    """Tells the audit stream who was refused, and how often."""

    def __init__(self, write: Callable[[Event], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._sums: OrderedDict[Hashable, _Sum] = OrderedDict()
        """In the order in which they fall due."""

    def login_refused(self, address: str, workspace: WorkspaceId | None, how: str) -> None:
        """Nobody proved who he is. Without a workspace, there is none of that name: people type passwords there too."""
        event = Event(
            kind=EventKind.LOGIN_REFUSED,
            requester=_SELF,
            workspace=workspace,
            message=f"A wrong {how} from {address}",
            detail={"client": address, "through": "ssh", "how": how, "attempts": 1},
        )
        self._note(("login", origin_of(address)), event)

    def denied(
        self, requester: str, workspace: WorkspaceId | None, address: str, method: str, fingerprint: str | None
    ) -> None:
        """Somebody proved who he is, and may not enter there; without a workspace, there is none of that name."""
        target = workspace.address if workspace else "what does not exist"
        event = Event(
            kind=EventKind.ACCESS_DENIED,
            requester=requester,
            workspace=workspace,
            message=f"{requester} may not enter {target} by SSH",
            detail={
                "client": address,
                "through": "ssh",
                "method": method,
                "fingerprint": fingerprint,
                "attempts": 1,
            },
        )
        self._note(("access", requester, workspace, method), event)

    async def run(self) -> None:
        """Tell the sums as they fall due, for ever."""
        while True:
            await asyncio.sleep(_LOOK)
            self.tell_due()

    def tell_due(self) -> None:
        """Tell the sums whose time has come."""
        self._tell(self._clock() - _GATHERED)

    def flush(self) -> None:
        """Tell all that is left."""
        self._tell(self._clock())

    def _note(self, key: Hashable, event: Event) -> None:
        if key not in self._sums and len(self._sums) >= _MOST:
            key = event.kind
        known = self._sums.get(key)
        if known is None:
            self._sums[key] = _Sum(event, self._clock())
            self._write(event)
        else:
            known.latest, known.count = event, known.count + 1

    def _tell(self, up_to: float) -> None:
        while self._sums and (front := next(iter(self._sums.items())))[1].since <= up_to:
            key, gathered = front
            del self._sums[key]
            if gathered.count:
                self._write(_summary(gathered))
                self._sums[key] = _Sum(gathered.latest, self._clock())


def _summary(gathered: _Sum) -> Event:
    latest = gathered.latest
    return latest.model_copy(
        update={
            "id": new_id(),
            "message": f"{latest.message}, {gathered.count} times within a minute",
            "detail": latest.detail | {"attempts": gathered.count},
        }
    )
