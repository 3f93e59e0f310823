"""How a workspace differs from what its profile gives to everybody."""

from collections.abc import Callable
from typing import Any

from mlhub_hub.pages.limits import usual_spec
from mlhub_hub.pages.words import cores, size
from mlhub_shared.contracts.policy import Policy
from mlhub_shared.contracts.workspace import WorkspaceSpec

_Say = Callable[[Any], str]

_SAID: tuple[tuple[str, str, _Say, _Say], ...] = (
    ("image", "{}", str, str),
    ("cpu_limit", "{}", cores, "{:g}".format),
    ("mem_limit", "{} memory", size, size),
    ("shm_size", "{} shared memory", size, size),
)
"""Option, how it is said, in which words, and the usual value in which."""


def differences(spec: WorkspaceSpec, policy: Policy) -> tuple[str, ...]:
    """In a few words each, such as `2 cores instead of 1`; empty where there are no profiles."""
    if not any(profile.name == spec.profile for profile in policy.profiles):
        return ()
    usual = usual_spec(policy, spec.profile)
    found = [
        frame.format(say(getattr(spec, field))) + _instead(getattr(usual, field), say_usual)
        for field, frame, say, say_usual in _SAID
        if getattr(spec, field) is not None and getattr(spec, field) != getattr(usual, field)
    ]
    if not spec.is_mount_volume:
        found.append("no persistent volume")
    return tuple(found)


def _instead(usual: Any, say: _Say) -> str:
    return f" instead of {say(usual)}" if usual is not None else ""
