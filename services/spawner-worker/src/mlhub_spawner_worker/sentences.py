"""How a workspace came to its end, or why it has not yet, in words for its owner."""

from datetime import timedelta

_KILLED = -9
"""Exit code of what could not refuse its end."""


def ended(code: int | None) -> str:
    """It ran no more. None: nobody saw how."""
    if code is None:
        return "It ended by itself; its exit code is not known"
    if code == _KILLED:
        return "It was killed (signal 9): by somebody, or because the machine's memory ran out"
    return f"It was ended by signal {-code}" if code < 0 else f"It ended with exit code {code}"


def out_of_memory(limit: int | None) -> str:
    """It was killed for the memory it used; `limit` in bytes."""
    if limit is None:
        return "It was killed because memory ran out"
    return f"It was killed because it needed more than its {limit / 1024**2:.4g} MiB of memory"


def silent(port: int | None, patience: timedelta) -> str:
    """It runs, and does not answer."""
    where = f" on port {port}" if port is not None else ""
    return f"Nothing answered{where} within {patience.total_seconds():g} s; the last lines of its log may say why"


def postponed(node: str | None, *, is_deletion: bool) -> str:
    """What its node has to do, which is away."""
    return f"Node {node} is away; it is {'deleted' if is_deletion else 'stopped'} when the node is back"
