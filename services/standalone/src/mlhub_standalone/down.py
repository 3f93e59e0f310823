"""`mlhub down`: ends an instance from another terminal, or what a killed launcher left."""

import signal
import time

from mlhub_standalone import leftovers
from mlhub_standalone.console import say
from mlhub_standalone.data_dir import DataDir
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.lock import END, KEEP_WORKSPACES, InstanceLock
from mlhub_standalone.processes import Identity

WITHIN = 120.0
"""Seconds in which a launcher must have ended: more than all its own bounds together."""


def down(data: DataDir, *, keep_workspaces: bool) -> None:
    """End everything; LauncherError if the launcher does not end."""
    lock = InstanceLock(data)
    launcher = lock.holder()
    if launcher is not None:
        _end_launcher(launcher, KEEP_WORKSPACES if keep_workspaces else END)
    if not data.exists():
        say(f"There is no ML Hub in {data.root}.")
        return
    # From here on no new launcher can start what is being ended.
    lock.acquire()
    try:
        ended = leftovers.end(data, keep_workspaces=keep_workspaces)
        data.state.unlink(missing_ok=True)
    finally:
        lock.release()
    if launcher is None:
        say(f"Ended {ended}, which ran on without a launcher." if str(ended) else f"Nothing ran on {data.root}.")
    else:
        say("Ended.")


def _end_launcher(launcher: Identity, number: signal.Signals) -> None:
    say(f"Ending ML Hub (launcher: pid {launcher.pid}) ...")
    launcher.send(number)
    deadline = time.monotonic() + WITHIN
    while launcher.is_alive:
        if time.monotonic() > deadline:
            raise LauncherError(f"the launcher (pid {launcher.pid}) did not end within {WITHIN:.0f} s")
        time.sleep(0.05)
