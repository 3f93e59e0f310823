"""How a pod came to its end, in the worker's words. Pure."""

from mlhub_shared.contracts.workspace import Reason
from mlhub_spawner_worker.backends.base import Exit
from mlhub_spawner_worker.backends.kubernetes.sightings import Ended, Impossible, Pod

_TERM, _KILL = -15, -9

_REMOVED = "Its pod was deleted by somebody else"

GONE = Exit(None, reason=Reason.EVICTED, message="Its pod is not there any more, and nobody saw it go")
"""Of one that should be there, and is not."""


def exit_of(pod: Pod, *, is_gone: bool, is_ours: bool) -> Exit | None:
    """None: it has not ended. `is_gone`: the pod is not there any more; `is_ours`: the worker has deleted it."""
    match pod.sighting:
        case Impossible(message=message, reason=reason):
            return Exit(None, reason=reason, message=message)
        case Ended() as ended:
            return _ended(pod, ended, is_ours=is_ours)
    if not is_gone:
        return None
    if is_ours:
        # Nobody has told the code of what was ended before its last state could be seen.
        return Exit(_KILL if pod.address else _TERM)
    return Exit(None, reason=Reason.EVICTED, message=pod.fate or _REMOVED)


def _ended(pod: Pod, ended: Ended, *, is_ours: bool) -> Exit:
    if is_ours:
        return Exit(ended.code, ended.last_words, reason=Reason.EXITED)
    if pod.is_leaving and (ended.reason is Reason.EXITED or ended.with_node):
        return Exit(ended.code, ended.last_words, reason=Reason.EVICTED, message=pod.fate or _REMOVED)
    return Exit(ended.code, ended.last_words, reason=ended.reason, message=ended.message, with_host=ended.with_node)
