"""What stands for the SSH gateway: reads the PROXY protocol, sends a banner, and echoes."""

import asyncio
import ipaddress
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

BANNER = b"SSH-2.0-gateway\r\n"
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


@dataclass
class SshGateway:
    """Every connection, by the client's address and port as they were told."""

    clients: list[tuple[str, int]] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None

    async def start(self, path: Path | None = None, host: str = "127.0.0.1", port: int = 0) -> Self:
        if path is not None:
            self._server = await asyncio.start_unix_server(self._serve, path)
        else:
            self._server = await asyncio.start_server(self._serve, host, port)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            self.clients.append(await _client(reader))
            writer.write(BANNER)
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


async def _client(reader: asyncio.StreamReader) -> tuple[str, int]:
    head = await reader.readexactly(16)
    assert head[:12] == _SIGNATURE
    assert head[12] == 0x21, "version 2, PROXY"
    data = await reader.readexactly(struct.unpack("!H", head[14:16])[0])
    width = {1: 4, 2: 16}[head[13] >> 4]
    return str(ipaddress.ip_address(data[:width])), struct.unpack("!H", data[2 * width : 2 * width + 2])[0]
