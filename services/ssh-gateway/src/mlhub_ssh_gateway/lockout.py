"""When not to look at a token at all: wrong ones in a row, by login name and address, and by address.

Nobody can lock a user out from another address. Keys can't be guessed, so whoever has one gets in all the same.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from mlhub_ssh_gateway.admission import origin_of

_FIRST_LOCK, _LONGEST_LOCK = 30.0, 3600.0
"""Seconds; the first doubles with every further failure."""
_FORGOTTEN = 6 * 3600.0
"""Seconds without a further failure."""
_ADDRESS_FACTOR = 5
"""An address has more people than one."""
_REMEMBERED = 10_000
"""The longest untouched is forgotten first."""

_Key = tuple[str, int | None]


@dataclass
class _Failures:
    count: int = 0
    last_at: float = 0
    locked_until: float = 0


class Lockout:
    """Counts wrong tokens."""

    def __init__(self, allowed: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`allowed`: before a login name is locked for an address."""
        self._allowed, self._clock = allowed, clock
        self._failures: OrderedDict[_Key, _Failures] = OrderedDict()

    def is_locked(self, login_name: str, address: str) -> bool:
        """Whether tokens are refused unseen."""
        now = self._clock()
        found = (self._failures.get(key) for key in _keys(login_name, address))
        return any(failures.locked_until > now for failures in found if failures is not None)

    def failed(self, login_name: str, address: str) -> None:
        """A wrong one."""
        now = self._clock()
        for key, allowed in zip(
            _keys(login_name, address), (self._allowed, self._allowed * _ADDRESS_FACTOR), strict=True
        ):
            failures = self._failures.setdefault(key, _Failures())
            self._failures.move_to_end(key)
            if now - failures.last_at > _FORGOTTEN:
                failures.count = 0
            failures.count += 1
            failures.last_at = now
            if failures.count >= allowed:
                doublings = min(failures.count - allowed, 20)
                failures.locked_until = now + min(_FIRST_LOCK * 2**doublings, _LONGEST_LOCK)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def succeeded(self, login_name: str, address: str) -> None:
        """A right one; it says nothing about others at this address."""
        self._failures.pop(_keys(login_name, address)[0], None)


def _keys(login_name: str, address: str) -> tuple[_Key, _Key]:
    # Strangers choose the names: only a number of each is kept.
    origin = origin_of(address)
    return (origin, hash(login_name)), (origin, None)
