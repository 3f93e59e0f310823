"""Which GPU is whose, by the ids of one node. Pure.

Nobody gets a GPU that somebody has, unless the profiles of both say that theirs may be shared. Where GPUs are counted
the backend knows which are whose, and how many there are.
"""

from collections.abc import Iterable, Mapping

from mlhub_shared.contracts.workspace import COUNTED

Holders = Mapping[str, bool]
"""The GPUs that somebody has, by id; True if all who have it share it."""

_ALL = "all"


def ids(asked: str | None, there: tuple[str, ...]) -> tuple[str, ...]:
    """What is asked for, as ids of a node with these GPUs: all of them, or the named ones, there or not.

    None of a mere number: those have no ids.
    """
    if asked is None or asked.startswith(COUNTED):
        return ()
    return there if asked == _ALL else tuple(dict.fromkeys(asked.split(",")))


def is_there(asked: str | None, there: tuple[str, ...], *, are_counted: bool = False) -> bool:
    """Whether a node with these GPUs, or one that counts its own, has what is asked for, free or not."""
    if asked is not None and asked.startswith(COUNTED):
        return are_counted
    wanted = ids(asked, there)
    return asked is None or (bool(wanted) and set(wanted) <= set(there))


def holders(held: Iterable[tuple[tuple[str, ...], bool]]) -> dict[str, bool]:
    """Who has what, from the ids of each workspace and whether it shares them."""
    found: dict[str, bool] = {}
    for gpu_ids, is_shared in held:
        for gpu in gpu_ids:
            found[gpu] = found.get(gpu, True) and is_shared
    return found


def missing(wanted: Iterable[str], held: Holders, *, is_shared: bool) -> tuple[str, ...]:
    """Those of the wanted ids that can't be had now."""
    return tuple(gpu for gpu in wanted if gpu in held and not (is_shared and held[gpu]))


def in_words(gpu_ids: Iterable[str]) -> str:
    """`GPU 0`, `GPUs 0 and 2`, `GPUs 0, 1 and 2`."""
    *most, last = gpu_ids
    return f"GPUs {', '.join(most)} and {last}" if most else f"GPU {last}"
