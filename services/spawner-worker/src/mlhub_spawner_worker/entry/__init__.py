"""How programs are run inside a workspace: what the attach endpoint asks for, and each backend offers in its way."""

from mlhub_spawner_worker.entry.contract import (
    LOCALHOST,
    Accept,
    Arrived,
    Caller,
    Child,
    Client,
    Entry,
    EntryError,
    Link,
    Listener,
    Loopback,
    Order,
    Size,
    Terminal,
    What,
)
from mlhub_spawner_worker.entry.joint import Joint

__all__ = [
    "LOCALHOST",
    "Accept",
    "Arrived",
    "Caller",
    "Child",
    "Client",
    "Entry",
    "EntryError",
    "Joint",
    "Link",
    "Listener",
    "Loopback",
    "Order",
    "Size",
    "Terminal",
    "What",
]
