"""What the worker may do to a namespace of workspaces: all that it ever asks of the API. Its Role grants just this."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Right:
    """One verb on one kind of things."""

    group: str
    """Of the API; empty: the core."""
    resource: str
    verb: str
    purpose: str
    """Completes "without it the worker can't ..."."""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


_CORE, _NETWORKING = "", "networking.k8s.io"

RIGHTS = (
    Right(_CORE, "pods", "create", "start a workspace"),
    Right(_CORE, "pods", "get", "tell its own pods from others"),
    Right(_CORE, "pods", "list", "find what runs"),
    Right(_CORE, "pods", "watch", "hear of starts and deaths at once"),
    Right(_CORE, "pods", "patch", "keep the record of a workspace without a volume"),
    Right(_CORE, "pods", "delete", "stop a workspace"),
    Right(_CORE, "pods/log", "get", "show the last lines of a log"),
    Right(_CORE, "pods/exec", "get", "enter a workspace"),
    Right(_CORE, "pods/exec", "create", "enter a workspace"),
    Right(_CORE, "pods/portforward", "get", "reach the ports of a workspace"),
    Right(_CORE, "pods/portforward", "create", "reach the ports of a workspace"),
    Right(_CORE, "events", "list", "tell how far a start is"),
    Right(_CORE, "events", "watch", "tell how far a start is"),
    Right(_CORE, "services", "create", "give a workspace a name in the DNS"),
    Right(_CORE, "services", "get", "tell its own services from others"),
    Right(_CORE, "services", "patch", "give a workspace a name in the DNS"),
    Right(_CORE, "persistentvolumeclaims", "create", "make a volume"),
    Right(_CORE, "persistentvolumeclaims", "get", "tell its own volumes from others"),
    Right(_CORE, "persistentvolumeclaims", "list", "find what is kept"),
    Right(_CORE, "persistentvolumeclaims", "patch", "keep a record beside its volume"),
    Right(_CORE, "persistentvolumeclaims", "delete", "delete a workspace"),
    Right(_NETWORKING, "networkpolicies", "create", "isolate a workspace"),
    Right(_NETWORKING, "networkpolicies", "get", "tell its own policies from others"),
    Right(_NETWORKING, "networkpolicies", "patch", "isolate a workspace"),
    Right(_NETWORKING, "networkpolicies", "delete", "clear away a workspace without a volume"),
)

_BY_USE = {(right.resource, right.verb): right for right in RIGHTS}


def right(resource: str, verb: str) -> Right:
    """The one that a call needs; KeyError if the worker was never given it."""
    return _BY_USE[resource, verb]
