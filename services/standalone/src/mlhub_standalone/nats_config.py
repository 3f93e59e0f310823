"""The configuration of the embedded NATS server."""

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from mlhub_standalone.credentials import NATS_USER
from mlhub_standalone.data_dir import DataDir, make_private, write_private

MAX_PAYLOAD = 1024 * 1024
"""Bytes of one message: more than any option that is allowed, far less than would hurt."""


def write(data: DataDir, port: int, password: str) -> None:
    """Write it for this machine alone."""
    make_private(data.nats)
    write_private(data.nats_config, text(f"127.0.0.1:{port}", data.nats, password))


def text(listen: str, store: Path, password: str, *more: str) -> str:
    """A login, and an acknowledged message is on the disk before it is acknowledged."""
    # JSON's strings are NATS configuration's strings.
    return "\n".join(
        [
            f"listen: {json.dumps(listen)}",
            "server_name: mlhub",
            f"max_payload: {MAX_PAYLOAD}",
            f"jetstream {{ store_dir: {json.dumps(str(store))}, sync_interval: always }}",
            login(password),
            *more,
            "",
        ]
    )


def login(password: str) -> str:
    """What a server, or in its block the cluster, asks of those who connect."""
    return f"authorization {{ user: {json.dumps(NATS_USER)}, password: {json.dumps(password)} }}"


def cluster(password: str, servers: Sequence[str]) -> str:
    """How the servers of one cluster let each other in."""
    # They send what stands in a route, and nothing else.
    routes = [f"nats://{NATS_USER}:{quote(password, safe='')}@{server}" for server in servers]
    return f"{login(password)}\nroutes: {json.dumps(routes)}\n"
