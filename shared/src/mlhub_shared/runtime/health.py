"""Whether this service can do its work, by named conditions."""

from collections.abc import Callable

Condition = Callable[[], str | None]
"""None: fine; else what is wrong, in a few words."""


class Health:
    """Ready when every condition is fine."""

    def __init__(self) -> None:
        self._conditions: dict[str, Condition] = {}

    def require(self, name: str, condition: Condition) -> None:
        """Add a condition."""
        self._conditions[name] = condition

    def problems(self) -> dict[str, str]:
        """What is wrong, by the condition's name; empty when ready."""
        found = {name: condition() for name, condition in self._conditions.items()}
        return {name: problem for name, problem in found.items() if problem is not None}
