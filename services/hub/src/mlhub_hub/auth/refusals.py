"""Refused logins in the audit stream: the first at once, those that follow it counted together."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from mlhub_hub.auth.announce import announce_event
from mlhub_hub.auth.lockout import network_of
from mlhub_shared.contracts.events import Detail, Event, EventKind

_SETTINGS_KEY = "mlhub_refusals"

_TOGETHER = timedelta(minutes=1)
_MOST = 1000
"""Pairs of address and name that are counted apart; what is beyond counts as one."""

_Key = tuple[str, str | None]
_REST: _Key = ("", None)


@dataclass
class _Count:
    """What came after the refusal that was told."""

    address: str
    attempts: int = 0


class Refusals:
    """Tells of refused logins without letting whoever guesses fill the stream."""

    def __init__(self, tell: Callable[[Event], None], *, together: timedelta = _TOGETHER) -> None:
        self._tell, self._together = tell, together
        self._counts: dict[_Key, _Count] = {}

    def note(self, user: str | None, address: str, *, how: str) -> None:
        """A login failed. `user`: None where there is nobody of that name; people type passwords there too."""
        key: _Key = (network_of(address), user)
        if key not in self._counts and len(self._counts) >= _MOST:
            key = _REST
        if (count := self._counts.get(key)) is not None:
            count.attempts += 1
            return
        self._counts[key] = _Count(address)
        self._tell(_event(user, address, how, attempts=1))
        asyncio.get_running_loop().call_later(self._together.total_seconds(), self._end, key, user, how)

    def _end(self, key: _Key, user: str | None, how: str) -> None:
        count = self._counts.pop(key)
        if count.attempts:
            self._tell(_event(user if key is not _REST else None, count.address, how, attempts=count.attempts))


def note_refusal(settings: dict[str, object], user: str | None, address: str, *, how: str) -> None:
    """Count a failed login; `settings` are the web application's. See `Refusals.note`."""
    refusals = settings.setdefault(_SETTINGS_KEY, Refusals(partial(announce_event, settings)))
    assert isinstance(refusals, Refusals)  # noqa: S101
    refusals.note(user, address, how=how)


def _event(user: str | None, address: str, how: str, *, attempts: int) -> Event:
    times = "" if attempts == 1 else f", {attempts} times within a minute"
    detail: dict[str, Detail] = {"client": address, "through": "web", "how": how, "attempts": attempts}
    return Event(
        kind=EventKind.LOGIN_REFUSED,
        user=user,
        requester="service:hub",
        message=f"A wrong {how} from {address}{times}",
        detail=detail,
    )
