"""How programs are run inside a workspace: what the attach endpoint asks for, and each backend offers in its way."""

from mlhub_spawner_worker.entry.contract import (
    Child,
    Client,
    Entry,
    EntryError,
    Link,
    Loopback,
    Order,
    Size,
    Terminal,
    What,
)

__all__ = [
    "Child",
    "Client",
    "Entry",
    "EntryError",
    "Link",
    "Loopback",
    "Order",
    "Size",
    "Terminal",
    "What",
]
