"""Three real nats-servers that are one cluster on loopback."""

import asyncio
from pathlib import Path
from typing import Self

from mlhub_shared.bus import BusSettings
from tests.support.nats_server import PASSWORD, USER, NatsServer
from tests.support.ports import free_port

SIZE = 3


class NatsCluster:
    """Any one of its servers may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        ports = [free_port() for _ in range(SIZE)]
        routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports)
        self.servers = [
            NatsServer(
                folder / f"n{number}",
                more=f'server_name: "n{number}"\n'
                f'cluster {{ name: "test", listen: "127.0.0.1:{port}", routes: [{routes}] }}\n',
            )
            for number, port in enumerate(ports)
        ]

    async def start(self) -> Self:
        await asyncio.gather(*(server.start() for server in self.servers))
        return self

    async def stop(self) -> None:
        await asyncio.gather(*(server.stop() for server in self.servers))

    def settings(self, *, replicas: int = SIZE, first: int = 0) -> BusSettings:
        """How to connect, to that one first."""
        urls = [server.url for server in self.servers[first:] + self.servers[:first]]
        return BusSettings(
            url=",".join(urls), hub="test", service="tests", user=USER, password=PASSWORD, replicas=replicas
        )
