"""Gets certificates from an authority, one replica at a time, and renews them."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import structlog

from mlhub_proxy import metrics
from mlhub_proxy.certificates.authority import Authority, new_key
from mlhub_proxy.certificates.keeper import ISSUED, shared_pair
from mlhub_proxy.certificates.pair import read_pair
from mlhub_proxy.settings import ProxySettings
from mlhub_shared.bus import Table
from mlhub_shared.contracts.services import AcmeAccount, AcmeChallenge, AcmeTurn, Certificate, TlsEntry
from mlhub_shared.errors import Conflict, MLHubError, Temporary
from mlhub_shared.runtime.clock import Clock

log = structlog.get_logger(__name__)

ACCOUNT, TURN = "account", "turn"
"""Keys of what the replicas share beside certificates."""

_LOOK = 5.0
"""Seconds between two looks whether it is time."""
_TURN = timedelta(minutes=3)
"""How long one replica keeps the others from asking; more than an order may take."""
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)
"""After an order that failed; authorities count failures, and shut out who has too many."""
_KNOWN_EVERYWHERE = 1.0
"""Seconds until every replica answers to a challenge; their tables follow within milliseconds."""
_CHALLENGES_KEPT = timedelta(hours=1)
_HELD = timedelta(hours=1)
"""How long a new certificate waits for a bus that is away; authorities give few of the same names in a week."""


class Issuer:
    """Orders when two thirds of a certificate's time are over, or there is none for the names of the settings."""

    def __init__(self, settings: ProxySettings, authority: Authority, shared: Table[TlsEntry], clock: Clock) -> None:
        self._settings, self._authority, self._shared, self._clock = settings, authority, shared, clock

    async def run(self) -> None:
        """Order when it is time, until cancelled."""
        await self._shared.synced()
        while True:
            if self._shared.is_live and self._is_time():
                try:
                    await self._order()
                except Conflict:
                    log.debug("tls.another_replica_orders")
                except Temporary as error:
                    log.warning("tls.order_not_begun", error=str(error))
            await asyncio.sleep(_LOOK)

    def _is_time(self) -> bool:
        turn = self._turn()
        if turn is not None and self._clock() < turn.until:
            return False
        pair = shared_pair(self._shared, ISSUED)
        if pair is None or not pair.covers(self._settings.acme_domains):
            return True
        return self._clock() >= pair.begins + (pair.expires - pair.begins) * 2 / 3

    def _turn(self) -> AcmeTurn | None:
        entry = self._shared.value(TURN)
        return entry.root if entry is not None and isinstance(entry.root, AcmeTurn) else None

    async def _order(self) -> None:
        revision, last = await self._take_turn()
        paths: list[str] = []

        async def publish(answers: Mapping[str, str]) -> None:
            for path, answer in answers.items():
                key = _challenge_key(path)
                paths.append(key)
                entry = TlsEntry(AcmeChallenge(kind="challenge", path=path, answer=answer))
                await self._shared.bucket.put(key, entry, ttl=_CHALLENGES_KEPT)
            await asyncio.sleep(_KNOWN_EVERYWHERE)

        try:
            pem = await self._authority.order(self._settings.acme_domains, await self._account(), publish)
            entry = TlsEntry(Certificate(kind="certificate", pem=read_pair(pem).pem))
            await self._shared.bucket.put(ISSUED, entry, patience=_HELD)
        except MLHubError as error:
            await self._failed(error, revision, last.failures + 1 if last else 1)
        else:
            metrics.ORDERS.labels(outcome="issued").inc()
            log.info("tls.certificate_issued", names=self._settings.acme_domains)
            await self._shared.bucket.delete(TURN, last=revision)
        for key in paths:
            await self._shared.bucket.delete(key)

    async def _take_turn(self) -> tuple[int, AcmeTurn | None]:
        """The revision of our turn, and the turn before it; Conflict if another replica was faster."""
        last = self._turn()
        mine = self._entry(_TURN, failures=last.failures if last else 0)
        known = self._shared.get(TURN)
        if known is None:
            return await self._shared.bucket.create(TURN, mine), None
        return await self._shared.bucket.update(TURN, mine, last=known.revision), last

    async def _failed(self, error: MLHubError, revision: int, failures: int) -> None:
        metrics.ORDERS.labels(outcome="failed").inc()
        pause = min(_FIRST_PAUSE * 2 ** min(failures - 1, 10), _LONGEST_PAUSE)
        log.error("tls.order_failed", error=str(error), failures=failures, again_in=str(pause))
        entry = self._entry(pause, failures=failures, problem=str(error))
        await self._shared.bucket.update(TURN, entry, last=revision)

    def _entry(self, length: timedelta, *, failures: int, problem: str | None = None) -> TlsEntry:
        until = self._clock() + length
        return TlsEntry(
            AcmeTurn(kind="turn", replica=self._settings.replica, until=until, failures=failures, problem=problem)
        )

    async def _account(self) -> str:
        """The account's key, made by whoever comes first."""
        known = await self._shared.bucket.get(ACCOUNT)
        if known is None or not isinstance(known.value.root, AcmeAccount):
            key = new_key()
            await self._shared.bucket.put(ACCOUNT, TlsEntry(AcmeAccount(kind="account", key=key)))
            return key
        return known.value.root.key


def _challenge_key(path: str) -> str:
    return f"challenge.{path.rpartition('/')[2]}"
