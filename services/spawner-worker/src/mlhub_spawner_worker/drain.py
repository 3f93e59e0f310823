"""Whether this node is being emptied; kept over restarts of its worker.

A node that is being emptied takes no workspace, also none that returns to its data: those wait in line, are told why,
and start by themselves when the node takes workspaces again. Otherwise it would never be empty, and whoever is about
to pull its plug would do so under somebody who has just come back. What runs runs on until somebody stops it.
"""

import asyncio
from pathlib import Path

from mlhub_shared.errors import Temporary


class Drain:
    """A mark in the worker's data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._mark = data_dir / "draining"
        self.is_on = self._mark.exists()

    async def set(self, *, is_on: bool) -> bool:
        """Begin or end it; False if that is how it was. Temporary if it can't be kept."""
        if is_on == self.is_on:
            return False
        try:
            await asyncio.to_thread(self._keep, is_on)
        except OSError as error:
            raise Temporary(f"the node can't keep this in mind: {error.strerror}") from error
        self.is_on = is_on
        return True

    def _keep(self, is_on: bool) -> None:
        if is_on:
            self._mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._mark.touch(mode=0o600)
        else:
            self._mark.unlink(missing_ok=True)
