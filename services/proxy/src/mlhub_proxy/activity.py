"""When something last went through each workspace: pure, from byte counters to times."""

from collections.abc import Collection, Mapping
from datetime import datetime

from mlhub_proxy.runtime_api import Counter
from mlhub_shared.contracts.services import Activity

MOST = 5000
"""Workspaces whose activity is told, the latest first: the value must fit into one message of the bus."""


class ActivityLog:
    """Remembers the last counters; bytes below `min_bytes` between two looks are pings, not activity."""

    def __init__(self, min_bytes: int) -> None:
        self._min_bytes = min_bytes
        self._counters: Mapping[str, Counter] | None = None
        self._last: dict[str, datetime] = {}

    def look(self, counters: Mapping[str, Counter], now: datetime) -> bool:
        """Take a new look; whether there is anything new. The first one only tells where counting starts."""
        before, self._counters = self._counters, counters
        if before is None:
            return False
        active = [name for name, counter in counters.items() if _moved(before.get(name), counter) >= self._min_bytes]
        for name in active:
            self._last[name] = now.replace(microsecond=0)
        return bool(active)

    def keep(self, names: Collection[str]) -> None:
        """Forget all but these workspaces."""
        self._last = {name: when for name, when in self._last.items() if name in names}

    def report(self) -> dict[str, Activity]:
        """Activity by workspace name."""
        latest = sorted(self._last.items(), key=lambda item: item[1], reverse=True)[:MOST]
        return {name: self._activity(name, when) for name, when in latest}

    def _activity(self, name: str, when: datetime) -> Activity:
        counter = (self._counters or {}).get(name, Counter(0, 0, 0))
        return Activity(
            last_activity=when,
            bytes_in=counter.bytes_in,
            bytes_out=counter.bytes_out,
            open_connections=counter.open_connections,
        )


def _moved(before: Counter | None, now: Counter) -> int:
    """Bytes since the last look; counters that went back began anew."""
    total = now.bytes_in + now.bytes_out
    known = before.bytes_in + before.bytes_out if before else 0
    return total - known if total >= known else total
