"""Decides which certificate is shown, and brings it to HAProxy without closing a connection."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import structlog

from mlhub_proxy import metrics
from mlhub_proxy.certificates.mounted import Mounted
from mlhub_proxy.certificates.own import make_own, still_serves
from mlhub_proxy.certificates.pair import Pair, read_pair
from mlhub_proxy.entrance import CERTIFICATE, CHALLENGES
from mlhub_proxy.maps import write_whole
from mlhub_proxy.runtime_api import HAProxyUnavailable, RuntimeApi
from mlhub_proxy.settings import ProxySettings
from mlhub_shared.bus import Table
from mlhub_shared.contracts.services import AcmeChallenge, Certificate, TlsEntry
from mlhub_shared.errors import MLHubError, Permanent
from mlhub_shared.runtime.clock import Clock

log = structlog.get_logger(__name__)

OWN, ISSUED = "own", "issued"
"""Keys of the shared certificates: signed by ourselves, and by an authority."""

_LOOK = 2.0
"""Seconds between two looks at the folder and at the clock."""


class Keeper:
    """Keeps HAProxy's certificate: a mounted one, else an authority's, else our own, which all replicas share."""

    def __init__(self, settings: ProxySettings, folder: Path, api: RuntimeApi, clock: Clock) -> None:
        self._settings, self._folder, self._api, self._clock = settings, folder, api, clock
        self._mounted = Mounted(settings.cert_dir)
        self._current: Pair | None = None
        self._beginning = asyncio.Lock()
        self._refused: str | None = None
        self._stale = False
        """HAProxy may show something else than the current one."""
        self._challenges: Mapping[str, str] | None = None
        """What HAProxy answers to authorities; None: not known."""

    @property
    def problem(self) -> str | None:
        """Why people may not get the certificate they should; None: they do."""
        if self._mounted.problem or self._refused or self._current is None:
            return self._mounted.problem or self._refused or "there is no certificate yet"
        try:
            self._current.check(self._clock())
        except Permanent as error:
            return str(error)
        return None

    @property
    def pin(self) -> str | None:
        """Of the certificate that is shown, where nobody else vouches for it."""
        return self._current.pin if self._current else None

    async def prepare(self) -> None:
        """Write the files that HAProxy starts with; before the bus is there, the certificate of the last time."""
        await self._begin()
        await asyncio.to_thread(write_whole, self._folder / CERTIFICATE, self._pem())
        await asyncio.to_thread(write_whole, self._folder / CHALLENGES, "")

    def resync(self) -> None:
        """Bring everything to a HAProxy that may hold something else."""
        self._stale, self._challenges = True, None

    async def follow(self, shared: Table[TlsEntry]) -> None:
        """Look at the folder, at what is shared and at the clock, and follow them; until cancelled."""
        await self._begin()
        with shared.changes() as changes:
            while True:
                await self._bring(await self._choose(shared))
                await self._answer(shared)
                try:
                    async with asyncio.timeout(_LOOK):
                        await anext(changes)
                except TimeoutError:
                    continue

    async def _begin(self) -> None:
        async with self._beginning:
            if self._current is None:
                self._show(await asyncio.to_thread(self._first))

    def _first(self) -> Pair:
        now = self._clock()
        mounted = self._mounted.look(now, first=True)
        if mounted is not None:
            return mounted
        try:
            last = read_pair((self._folder / CERTIFICATE).read_text())
            last.check(now)
        except (OSError, ValueError, Permanent):
            return make_own(self._settings, now)
        return last

    async def _choose(self, shared: Table[TlsEntry]) -> Pair | None:
        mounted = await asyncio.to_thread(self._mounted.look, self._clock())
        if mounted is not None:
            return mounted
        if self._mounted.is_there or not shared.is_live:
            return self._current
        if self._settings.acme_domains:
            issued = shared_pair(shared, ISSUED)
            if issued is not None and issued.covers(self._settings.acme_domains) and self._clock() < issued.expires:
                return issued
        own = shared_pair(shared, OWN)
        if own is not None and still_serves(own, self._settings, self._clock()):
            return own
        await self._share(shared, own)
        return self._current  # what all replicas agreed on comes with the next change

    async def _share(self, shared: Table[TlsEntry], last: Pair | None) -> None:
        now, pair, known = self._clock(), self._current, shared.get(OWN)
        if pair is None or last is not None or not still_serves(pair, self._settings, now):
            pair = await asyncio.to_thread(make_own, self._settings, now, last=last)
        entry = TlsEntry(Certificate(kind="certificate", pem=pair.pem))
        try:
            if known is None:
                await shared.bucket.create(OWN, entry)
            else:
                await shared.bucket.update(OWN, entry, last=known.revision)
        except MLHubError as error:
            log.info("tls.certificate_not_shared", error=str(error))
        else:
            log.info("tls.certificate_made", names=sorted(pair.names))

    async def _bring(self, pair: Pair | None) -> None:
        if pair is None or (pair == self._current and not self._stale):
            self._refused = None
            return
        try:
            await self._api.set_certificate(CERTIFICATE, pair.pem)
        except HAProxyUnavailable as error:
            log.debug("tls.certificate_not_taken", error=str(error))  # with the next look, when HAProxy is back
            return
        except Permanent as error:
            if self._refused != str(error):
                self._refused = str(error)
                log.error("tls.certificate_refused", error=self._refused)
            return
        self._refused, self._stale = None, False
        self._show(pair)
        await asyncio.to_thread(write_whole, self._folder / CERTIFICATE, self._pem())

    async def _answer(self, shared: Table[TlsEntry]) -> None:
        entries = [entry.root for entry in shared.values()]
        wanted = {entry.path: entry.answer for entry in entries if isinstance(entry, AcmeChallenge)}
        if wanted != self._challenges:
            try:
                await self._api.swap(CHALLENGES, wanted)
            except (HAProxyUnavailable, Permanent) as error:
                log.debug("tls.challenges_not_taken", error=str(error))
            else:
                self._challenges = wanted

    def _show(self, pair: Pair) -> None:
        if pair != self._current:
            log.info(
                "tls.certificate",
                subject=pair.subject,
                names=sorted(pair.names),
                expires=pair.expires.isoformat(),
                fingerprint=pair.fingerprint,
            )
        self._current = pair
        metrics.CERTIFICATE_EXPIRES.set(pair.expires.timestamp())

    def _pem(self) -> str:
        return self._current.pem if self._current else ""


def shared_pair(shared: Table[TlsEntry], key: str) -> Pair | None:
    """A certificate that the replicas share; None if there is none that can be read."""
    entry = shared.value(key)
    if entry is None or not isinstance(entry.root, Certificate):
        return None
    try:
        return read_pair(entry.root.pem)
    except Permanent as error:
        log.error("tls.certificate_unreadable", key=key, error=str(error))
        return None
