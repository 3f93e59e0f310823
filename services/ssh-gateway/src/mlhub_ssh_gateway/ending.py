"""Ending sessions that are open: on request, and when what let somebody in is withdrawn."""

import asyncio
import contextlib
from collections.abc import Hashable

import structlog

from mlhub_shared.bus import Table
from mlhub_shared.contracts.queries import EndSession
from mlhub_shared.contracts.services import OpenSession, SshKey
from mlhub_shared.errors import MLHubError, NotFound
from mlhub_shared.tasks import end_tasks
from mlhub_ssh_gateway.access import TOKEN, Doorkeeper, Login
from mlhub_ssh_gateway.metrics import ENDED
from mlhub_ssh_gateway.sessions import Session, Sessions

log = structlog.get_logger(__name__)

_SETTLES = 1.0
"""Seconds before a key that is gone is believed to be."""
_REFILLED = 10.0
"""Seconds in which none is after the store was lost: the hub fills it again."""
_ROUND = 2.5
"""Seconds in which the hub is asked once about everybody whom only it knows about."""
_PER_SECOND, _LONGEST_ROUND = 250, 4.0
"""Questions; a crowd makes the round longer, up to so many seconds."""
_AT_ONCE = 8
"""Questions; a hub that can't answer a crowd in that time makes the round as long as it takes."""
_SELF = "service:ssh-gateway"


class Endings:
    """Ends what must not go on."""

    def __init__(self, sessions: Sessions, doorkeeper: Doorkeeper, keys: Table[SshKey], replica: str) -> None:
        self._sessions, self._doorkeeper, self._keys, self._replica = sessions, doorkeeper, keys, replica
        self._asking: dict[Hashable, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._revision, self._believed_from = 0, 0.0
        self._keyless: dict[str, float] = {}
        """Sessions by id, and since when their key is gone."""

    async def answer(self, query: EndSession) -> OpenSession:
        """End one session; NotFound if it has ended already."""
        session = self._sessions.get(query.id)
        if session is None:
            raise NotFound("this session has ended already")
        value = session.to_open_session(self._replica)
        name = query.requester.removeprefix("user:")
        log.info("session.ended", id=query.id, by=query.requester, correlation_id=query.correlation_id)
        self._end(session, f"{name} ended this session", query.requester, "asked")
        return value

    async def follow_keys(self) -> None:
        """End the sessions of keys that are taken away, for ever."""
        with self._keys.changes() as changes:
            while True:
                # A workspace's own key is in no table.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SETTLES if self._keyless else _ROUND):
                        await anext(changes)
                self._look_at_keys(asyncio.get_running_loop().time())

    def _look_at_keys(self, now: float) -> None:
        if self._keys.revision < self._revision:
            # Revisions that begin anew are another store's.
            self._believed_from = now + _REFILLED
        self._revision = self._keys.revision
        gone = [session for session in self._sessions.all() if not self._doorkeeper.has_key(session.login)]
        self._keyless = {session.id: self._keyless.get(session.id, now) for session in gone}
        for session in gone:
            if now >= max(self._keyless[session.id] + _SETTLES, self._believed_from):
                self._end(session, "this key does not log in any more", _SELF, "key")

    async def ask_again(self) -> None:
        """Ask the hub about those whom only it knows about, and end those who may not stay, for ever."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                questions, started = self._questions(), loop.time()
                length = min(max(_ROUND, len(questions) / _PER_SECOND), _LONGEST_ROUND)
                for number, (question, logins) in enumerate(questions.items()):
                    # Spread, so that the hub gets no burst; whoever waits for a slot falls behind, and catches up.
                    await asyncio.sleep(started + length * number / len(questions) - loop.time())
                    await self._ask(question, logins)
                await asyncio.sleep(started + length - loop.time())
        finally:
            await end_tasks(*self._asking.values())

    def _questions(self) -> dict[Hashable, list[Login]]:
        """What the hub is to be asked, and about whom."""
        found: dict[Hashable, list[Login]] = {}
        for login in self._sessions.logins():
            if (question := self._doorkeeper.question(login)) is not None:
                found.setdefault(question, []).append(login)
        return found

    async def _ask(self, question: Hashable, logins: list[Login]) -> None:
        # What is still being asked delays no other question.
        if question not in self._asking:
            await self._slots.acquire()
            task = self._asking[question] = asyncio.ensure_future(self._settle(logins))
            task.add_done_callback(lambda _: self._answered(question))

    def _answered(self, question: Hashable) -> None:
        self._slots.release()
        del self._asking[question]

    async def _settle(self, logins: list[Login]) -> None:
        try:
            put_out = await self._doorkeeper.put_out(logins)
        except MLHubError as error:
            # Who came in while the hub was there stays while it is away.
            log.debug("session.undecided", user=logins[0].requester, error=str(error))
            return
        for session in self._sessions.all() if put_out else ():
            if session.login in put_out:
                is_token = session.login.method == TOKEN
                sentence = "this token does not log in any more" if is_token else "you may not enter any more"
                self._end(session, sentence, _SELF, "access")

    def _end(self, session: Session, sentence: str, by: str, reason: str) -> None:
        ENDED.labels(reason=reason).inc()
        session.dismiss(sentence, by)
