"""The configuration of the embedded NATS server."""

import json

from mlhub_standalone.credentials import NATS_USER
from mlhub_standalone.data_dir import DataDir, make_private, write_private

MAX_PAYLOAD = 1024 * 1024
"""Bytes of one message: more than any option that is allowed, far less than would hurt."""


def write(data: DataDir, port: int, password: str) -> None:
    """Write it: loopback, a login, and an acknowledged message is on the disk before it is acknowledged."""
    make_private(data.nats)
    # JSON's strings are NATS configuration's strings.
    write_private(
        data.nats_config,
        "\n".join(
            [
                f'listen: "127.0.0.1:{port}"',
                "server_name: mlhub",
                f"max_payload: {MAX_PAYLOAD}",
                f"jetstream {{ store_dir: {json.dumps(str(data.nats))}, sync_interval: always }}",
                f"authorization {{ user: {json.dumps(NATS_USER)}, password: {json.dumps(password)} }}",
                "",
            ]
        ),
    )
