"""The secrets of a deployment on Kubernetes: made once, a Secret for each service that reads them.

    python -m mlhub_standalone.cluster_secrets

Another run changes nothing, unless a Secret or a key in one is missing: that is made, from the others where they have
it. Runs as a Job, with rights on these Secrets alone. Shows names, and no secret.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from mlhub_standalone import credentials, nats_config
from mlhub_standalone.cluster_api import ClusterApi, SomebodyElseWasFirst, TryLater, in_cluster
from mlhub_standalone.console import say
from mlhub_standalone.data_dir import DataDir
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.settings import user_environment

READERS = tuple(dict.fromkeys(reader for readers in credentials.READERS.values() for reader in readers))
SECRETS = tuple(reader for reader in READERS if reader != credentials.LAUNCHER)
"""The names of the Secrets, in the order in which they are made."""

COOKIES, ROUTES = "MLHUB_HUB_COOKIE_SECRET", "MLHUB_NATS_CLUSTER_PASSWORD"
"""What is made here alone: elsewhere the hub keeps a file, and there is one nats-server."""

SERVERS = ("nats-0.nats:6222", "nats-1.nats:6222", "nats-2.nats:6222")
"""Of which each server finds one, which tells it of all others."""

PATIENCE = 120.0
"""Seconds until the Job is told that it failed; it has more tries than this one."""

_FIRST, _MOST = 0.5, 10.0
"""Seconds between two tries."""


def keep(api: ClusterApi, *, patience: float = PATIENCE) -> None:
    """Make what is missing; LauncherError if it can't be done in time."""
    last = time.monotonic() + patience
    for pause in _pauses():
        try:
            _fill(api)
        except (SomebodyElseWasFirst, TryLater) as problem:
            if time.monotonic() + pause > last:
                raise LauncherError(f"{problem}; given up after {patience:.0f} s") from None
            say(f"{problem}; trying again in {pause:.1f} s")
            time.sleep(pause)
        else:
            return


def _fill(api: ClusterApi) -> None:
    """One try: read all, then write what is missing, in one order.

    Of several that run at once, only the one that knows all Secrets before the next can make that: they always agree.
    """
    found = {name: api.read(name) for name in SECRETS}
    with TemporaryDirectory() as folder:
        wanted = complete(DataDir(Path(folder)), {name: secret.data for name, secret in found.items()})
    for name, secret in found.items():
        missing = {key: text for key, text in wanted[name].items() if key not in secret.data}
        if not missing:
            say(f"Secret {name}: all is there")
        elif secret.version is None:
            api.create(name, missing)
            say(f"Secret {name}: made")
        else:
            api.add(name, missing, version=secret.version)
            say(f"Secret {name}: added {', '.join(sorted(missing))}")


def complete(data: DataDir, found: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, str]]:
    """What every Secret shall hold, from what all of them hold now; the folder is for that alone."""
    data.create()
    for name in SECRETS:
        data.secrets(name).mkdir()
        for key, value in found.get(name, {}).items():
            (data.secrets(name) / key).write_bytes(value)
    try:
        made = credentials.make(data)
        credentials.made_for(data, COOKIES, "hub")
        routes = credentials.made_for(data, ROUTES, "nats")
    except ValueError as error:
        raise LauncherError(f"a Secret holds what can't be used: {error}") from None
    files = credentials.public_halves(data, made) | {
        data.secrets("nats") / "auth.conf": nats_config.login(made.nats_password) + "\n",
        data.secrets("nats") / "cluster.conf": nats_config.cluster(routes, SERVERS),
    }
    for path, text in files.items():
        path.write_text(text)
    return {name: {file.name: file.read_text() for file in data.secrets(name).iterdir()} for name in SECRETS}


def _pauses() -> Iterator[float]:
    pause = _FIRST
    while True:
        yield pause
        pause = min(pause * 2, _MOST)


def main() -> None:
    """Keep the Secrets of this Job's namespace."""
    parser = argparse.ArgumentParser(prog="python -m mlhub_standalone.cluster_secrets")
    parser.add_argument("--account", type=Path, help="folder of the service account, as it is mounted into pods")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds to go on trying")
    options = parser.parse_args()
    try:
        keep(in_cluster(user_environment(), options.account), patience=options.patience)
    except LauncherError as error:
        sys.exit(f"mlhub: {error}")


if __name__ == "__main__":
    main()
