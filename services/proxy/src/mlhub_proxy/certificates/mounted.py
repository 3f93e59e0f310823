"""The certificate that somebody puts into a folder, and replaces there."""

from datetime import datetime
from pathlib import Path

import structlog

from mlhub_proxy.certificates.pair import Pair, read_pair
from mlhub_shared.errors import Permanent

log = structlog.get_logger(__name__)

_PLACES = (("cert.crt", "cert.key"), ("tls.crt", "tls.key"), ("cert.pem",))
"""The first of which there is anything counts; the second is what Kubernetes makes of its secrets."""


class Mounted:
    """A folder that is looked at again and again."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._trouble: str | None = None
        self.problem: str | None = None
        """Why what is there can't be served; None: it can, or there is nothing."""
        self.is_there = False
        """There is something, good or bad."""

    def look(self, now: datetime, *, first: bool = False) -> Pair | None:
        """What is there now, None if that can't be served.

        Trouble is told when it is seen a second time, but for the first look: whoever replaces two files is between
        them for a moment.
        """
        try:
            pair = self._read()
            if pair is not None:
                pair.check(now)
        except (OSError, ValueError, Permanent) as error:
            self._note(str(error), is_sure=first)
            return None
        self._trouble = self.problem = None
        return pair

    def _read(self) -> Pair | None:
        self.is_there = False
        if self._folder is None:
            return None
        for names in _PLACES:
            paths = [self._folder / name for name in names]
            if any(path.exists() for path in paths):
                self.is_there = True
                return read_pair("\n".join(path.read_text() for path in paths))
        return None

    def _note(self, trouble: str, *, is_sure: bool) -> None:
        before, self._trouble = self._trouble, trouble
        if (is_sure or before == trouble) and self.problem != trouble:
            self.problem = trouble
            log.error("tls.certificate_refused", folder=str(self._folder), error=trouble)
