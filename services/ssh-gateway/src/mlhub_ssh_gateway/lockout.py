"""When not to look at a token at all: wrong ones in a row, by login name and address, and by address.

Nobody can lock a user out from another address. Keys can't be guessed, so whoever has one gets in all the same.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from mlhub_ssh_gateway.admission import origin_of

_FIRST_LOCK = 30.0
"""Seconds; it doubles with every further failure."""
_NAMES_LOCK, _ADDRESS_LOCK = 3600.0, 120.0
"""Seconds of the longest lock, of a login name at an address and of an address. One failure is forgiven in each such
time: who types a wrong one now and then is never locked, however many share the address."""
_ADDRESS_FACTOR = 5
"""An address has more people than one."""
_REMEMBERED = 10_000
"""The longest untouched is forgotten first."""

_Key = tuple[str, int | None]


@dataclass
class _Failures:
    allowed: int
    longest: float
    """Seconds, of a lock and until one is forgiven."""
    since: float
    """Up to then, what was to be forgiven has been."""
    count: int = 0
    locked_until: float = 0

    def add(self, number: int, now: float) -> None:
        """Count some more, or less."""
        forgiven = int((now - self.since) / self.longest)
        left = max(self.count - forgiven, 0)
        self.since = self.since + forgiven * self.longest if left else now
        self.count = max(left + number, 0)

    def lock(self, now: float) -> None:
        """Lock, if there were too many."""
        doublings = self.count - self.allowed
        if doublings >= 0:
            seconds = _FIRST_LOCK * 2**doublings
            self.locked_until = now + min(seconds, self.longest)
            if seconds > self.longest:
                # What makes no lock longer takes no longer to be forgiven.
                self.count -= 1


class Lockout:
    """Counts wrong tokens."""

    def __init__(self, allowed: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`allowed`: before a login name is locked for an address."""
        self._limits = ((allowed, _NAMES_LOCK), (allowed * _ADDRESS_FACTOR, _ADDRESS_LOCK))
        self._clock = clock
        self._failures: OrderedDict[_Key, _Failures] = OrderedDict()

    def is_locked(self, login_name: str, address: str) -> bool:
        """Whether tokens are refused unseen."""
        now = self._clock()
        found = (self._failures.get(key) for key in _keys(login_name, address))
        return any(failures.locked_until > now for failures in found if failures is not None)

    def failed(self, login_name: str, address: str) -> None:
        """A wrong one."""
        now = self._clock()
        for key, limits in zip(_keys(login_name, address), self._limits, strict=True):
            failures = self._failures.setdefault(key, _Failures(*limits, now))
            self._failures.move_to_end(key)
            failures.add(1, now)
            failures.lock(now)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def succeeded(self, login_name: str, address: str) -> None:
        """A right one; of others at this address it says only that not all of them guess."""
        name, origin = _keys(login_name, address)
        self._failures.pop(name, None)
        if (failures := self._failures.get(origin)) is not None:
            failures.add(-1, self._clock())


def _keys(login_name: str, address: str) -> tuple[_Key, _Key]:
    # Strangers choose the names: only a number of each is kept.
    origin = origin_of(address)
    return (origin, hash(login_name)), (origin, None)
