"""What every measure is given."""

from dataclasses import dataclass
from pathlib import Path

from tests.bench.report import Report


class NotAvailableError(Exception):
    """What a measure or a peer needs can't be had on this machine; the text says why."""


@dataclass(frozen=True)
class Bench:
    """How thorough to be, where to work, and where the figures go."""

    folder: Path
    """For databases, stores and logs; kept when a measure fails."""
    runs: int
    quick: bool
    """Small numbers, to see that everything works; the figures say little then."""
    report: Report
    artefacts: Path
    """Where peers stay installed from one run to the next."""
    chp: Path | None
    """configurable-http-proxy's command, None where there is none."""

    def amount(self, full: int, quick: int) -> int:
        """How many of something."""
        return quick if self.quick else full
