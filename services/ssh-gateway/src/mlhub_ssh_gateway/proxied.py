"""Connections that a proxy hands on: the PROXY protocol's header (version 2), which says who is at the other end."""

import asyncio
import ipaddress
import socket
import struct

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = struct.Struct("!12sBBH")
"""Signature, version and command, family and transport, length of what follows."""
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESSES = {0x11: (ipaddress.IPv4Address, 4, 12), 0x21: (ipaddress.IPv6Address, 16, 36)}
"""TCP over either family: kind and size of an address, and of both addresses with their ports."""
_MOST = 2048
"""Bytes of addresses and additions that are read; HAProxy sends a fraction of it."""


class BadHeader(Exception):
    """What came first is no header, or none that says who is there."""


async def read_origin(sock: socket.socket) -> str | None:
    """Take the header off a connection: the client's address, None if it is the proxy that speaks for itself.

    BadHeader if it is none; nothing behind it is read. The caller bounds the wait.
    """
    fixed = await _exactly(sock, _FIXED.size)
    return parse(fixed, await _exactly(sock, length_of(fixed)))


def length_of(fixed: bytes) -> int:
    """How many bytes follow the fixed part of a header."""
    signature, _, _, length = _FIXED.unpack(fixed)
    if signature != _SIGNATURE or length > _MOST:
        raise BadHeader
    return int(length)


def parse(fixed: bytes, rest: bytes) -> str | None:
    """The client's address out of a whole header; None for the proxy's own errands, such as health checks."""
    _, command, family, _ = _FIXED.unpack(fixed)
    if command == _LOCAL:
        return None
    if command != _PROXY or family not in _ADDRESSES:
        raise BadHeader
    kind, size, least = _ADDRESSES[family]
    if len(rest) < least:
        raise BadHeader
    return str(kind(rest[:size]))


async def _exactly(sock: socket.socket, count: int) -> bytes:
    # Never a byte more: what follows is the client's, for whoever gets the socket next.
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < count:
        piece = await loop.sock_recv(sock, count - len(data))
        if not piece:
            raise BadHeader
        data += piece
    return data
