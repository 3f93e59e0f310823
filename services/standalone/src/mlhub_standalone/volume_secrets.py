"""The secrets of a deployment whose services are containers: made once, each in the volumes of those who need it.

    python -m mlhub_standalone.volume_secrets ROOT --owner UID

Below ROOT/secrets every service has a volume of its own, mounted here and in that service alone. Another run changes
nothing; a volume that was lost is filled anew from the others. Runs as root, and leaves each file to its reader.

It is the first to run, so it also answers the variables of the first ML Hub: by lines in its log, or by no start.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mlhub_standalone import credentials, earlier, nats_config
from mlhub_standalone.console import say
from mlhub_standalone.credentials import Credentials
from mlhub_standalone.data_dir import DataDir, write_private
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.settings import user_environment

NATS_PORT = 4222
STORE = Path("/data")
"""Where the container of the bus keeps its streams."""
_MONITOR = 'http: "127.0.0.1:8222"'
"""For the container's own health check."""

_ROOT = 0
_READ_BY_ROOT = frozenset({"spawner-worker"})
"""Whoever uses the engine's socket."""


def fill(data: DataDir, *, owner: int, person: Mapping[str, str]) -> None:
    """Make what is missing, take what the person gives, and leave it to the services' user."""
    made = credentials.make(data)
    credentials.take_given(data, person)
    for path, text in _files(data, made).items():
        if not path.is_file() or path.read_text() != text:
            write_private(path, text)
    for volume in sorted((data.root / "secrets").iterdir()):
        _give(volume, _ROOT if volume.name in _READ_BY_ROOT else owner)
    if data.nats.is_dir():
        # An image of nats-server that is not ours knows nothing of this user.
        os.chown(data.nats, owner, owner)


def _files(data: DataDir, made: Credentials) -> dict[Path, str]:
    """What is not a secret by itself, or holds one in a form of its own."""
    listen = f"0.0.0.0:{NATS_PORT}"
    config = nats_config.text(listen, STORE, made.nats_password, _MONITOR)
    # The gateway would write its public keys itself, but its volume is read-only to it.
    return {data.nats_config: config} | credentials.public_halves(data, made)


def _give(folder: Path, owner: int) -> None:
    for path in (*folder.iterdir(), folder):
        path.chmod(0o700 if path.is_dir() else 0o400)
        os.chown(path, owner, owner)


def main() -> None:
    """Fill the volumes."""
    parser = argparse.ArgumentParser(prog="python -m mlhub_standalone.volume_secrets")
    parser.add_argument("root", type=Path)
    parser.add_argument("--owner", type=int, required=True, help="user id of the services")
    options, person = parser.parse_args(), user_environment()
    try:
        for remark in earlier.answer(person).remarks:
            say(remark)
    except LauncherError as error:
        sys.exit(f"mlhub: {error}")
    fill(DataDir(options.root), owner=options.owner, person=person)


if __name__ == "__main__":
    main()
