"""What goes wrong with the server itself, when the test says so."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.support.kube.errors import ApiError


class _Server(Protocol):
    async def stop_listening(self) -> None: ...

    async def listen_again(self) -> None: ...


@dataclass
class Answer:
    """Given in place of the real one."""

    matches: Callable[[str, str], bool]
    """By verb and resource."""
    left: int
    """How often."""
    error: ApiError | None = None
    status: int = 0
    text: str = ""
    """A body that is no JSON, for a middle box."""


def everything(_verb: str, _resource: str) -> bool:
    """Any request."""
    return True


def of(verb: str, resource: str) -> Callable[[str, str], bool]:
    """Requests of one kind, such as `create`, `pods`."""
    return lambda its_verb, its_resource: (its_verb, its_resource) == (verb, resource)


class Faults:
    """Everything here is off until it is asked for."""

    def __init__(self, server: _Server, revoked: set[tuple[str, str]], compact: Callable[[], None]) -> None:
        self._server, self._revoked, self._compact = server, revoked, compact
        self._answers: list[Answer] = []
        self._cuts: set[asyncio.Event] = set()
        self.delay = 0.0
        """Seconds that every request takes longer."""
        self._speaking = asyncio.Event()
        self._speaking.set()

    # Watches

    def cut_watches(self) -> None:
        """Break every open watch in the middle."""
        for cut in self._cuts:
            cut.set()

    def expire_watches(self) -> None:
        """Forget the history and end every open watch: the next one from where it was is told 410."""
        self._compact()
        self.cut_watches()

    def silence(self) -> None:
        """Watches stay open and tell nothing, not even their end, until `speak`."""
        self._speaking.clear()

    def speak(self) -> None:
        """They tell what they have kept back."""
        self._speaking.set()

    def compact(self) -> None:
        """Forget the history; open watches go on."""
        self._compact()

    # Answers

    def answer(self, error: ApiError, *, times: int = 1, matches: Callable[[str, str], bool] = everything) -> None:
        """The next requests that match are refused with this."""
        self._answers.append(Answer(matches, times, error))

    def busy(self, retry_after: int = 1, *, times: int = 1, matches: Callable[[str, str], bool] = everything) -> None:
        """429 with Retry-After."""
        text = "too many requests, please try again later"
        headers = {"Retry-After": str(retry_after)}
        error = ApiError(429, "TooManyRequests", text, details={"retryAfterSeconds": retry_after}, headers=headers)
        self.answer(error, times=times, matches=matches)

    def broken(self, *, times: int = 1, matches: Callable[[str, str], bool] = everything) -> None:
        """500."""
        error = ApiError(500, "InternalError", "Internal error occurred: etcdserver: request timed out")
        self.answer(error, times=times, matches=matches)

    def middle_box(
        self, status: int = 503, *, times: int = 1, matches: Callable[[str, str], bool] = everything
    ) -> None:
        """Text of a load balancer whose servers are away, or that does not know where to."""
        text = "404 page not found\n" if status == 404 else "upstream connect error or disconnect\n"
        self._answers.append(Answer(matches, times, None, status, text))

    def quota(self, *, times: int = 1) -> None:
        """A full quota refuses pods, before it looks at their names."""
        text = 'pods "" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1'
        self.answer(ApiError(403, "Forbidden", text), times=times, matches=of("create", "pods"))

    def clear(self) -> None:
        """No more of these answers, silence or delay."""
        self._answers.clear()
        self.delay = 0.0
        self.speak()

    # Rights

    def revoke(self, verb: str, resource: str) -> None:
        """Nobody may do this any more."""
        self._revoked.add((verb, resource))

    def grant(self, verb: str, resource: str) -> None:
        """They may again."""
        self._revoked.discard((verb, resource))

    # The server away

    async def away(self, seconds: float, *, forbidden: int = 0) -> None:
        """Gone from its port for so long, with all connections; its objects are kept, and the next `forbidden`
        requests are refused with 403, as by a server that has just started."""
        await self.leave()
        await asyncio.sleep(seconds)
        await self.come_back(forbidden=forbidden)

    async def leave(self) -> None:
        """Close the port and break all connections."""
        await self._server.stop_listening()

    async def come_back(self, *, forbidden: int = 0) -> None:
        """Answer again."""
        if forbidden:
            text = 'pods is forbidden: User "system:serviceaccount" cannot list resource "pods": RBAC: not yet loaded'
            self.answer(ApiError(403, "Forbidden", text), times=forbidden)
        await self._server.listen_again()

    # What the server asks

    async def interfere(self, verb: str, resource: str) -> Answer | None:
        """What a request meets before it is looked at."""
        if self.delay:
            await asyncio.sleep(self.delay)
        for answer in self._answers:
            if answer.matches(verb, resource):
                answer.left -= 1
                if answer.left <= 0:
                    self._answers.remove(answer)
                return answer
        return None

    async def spoken(self) -> None:
        """Wait until watches may tell."""
        await self._speaking.wait()

    def watching(self) -> asyncio.Event:
        """Set once a watch is to break."""
        cut = asyncio.Event()
        self._cuts.add(cut)
        return cut

    def watched(self, cut: asyncio.Event) -> None:
        """That watch has ended."""
        self._cuts.discard(cut)
