"""Where a workspace's container is put: the seam between containers and networks."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class NetworkPlace:
    """A network that a container may join now."""

    network: str
    gateway: str = ""
    """Address of the host on it."""
    extra_hosts: tuple[str, ...] = ()
    """`name:address` lines for its hosts file."""
    publish_on: str | None = None
    """Address of the node at which its port is published. None: it is reached by its own address."""


class Networks(Protocol):
    """The users' networks. What can't be done is a BackendError, what may pass a Temporary."""

    @property
    def caveat(self) -> str:
        """What people must know of the isolation of workspaces; empty when all is as it should be."""

    async def open(self) -> None:
        """Take up what a previous worker left; the engine is open, and its events are not followed yet."""

    async def aclose(self) -> None:
        """Let go; networks and rules stay."""

    async def attach(self, user: str) -> NetworkPlace:
        """A network of this user with room for one container more, made and joined by who must reach it.

        Called again for every start. From before this call until the container exists `released` is not called for
        this user; a `released` that was called before may still be under way, and is waited for.
        """

    async def released(self, user: str) -> None:
        """The user has no container any more; his networks can go. Called again whenever that is so."""


class DefaultBridge:
    """Implements Networks: everybody on the engine's default bridge. For engines that nobody shares."""

    caveat = "All workspaces are on one network."

    async def open(self) -> None:
        """Nothing is to be taken up."""

    async def aclose(self) -> None:
        """Nothing is held."""

    async def attach(self, user: str) -> NetworkPlace:
        """The bridge."""
        return NetworkPlace("bridge")

    async def released(self, user: str) -> None:
        """The bridge stays."""
