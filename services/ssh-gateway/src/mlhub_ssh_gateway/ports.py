"""Sockets to listen on, by address or by path."""

import errno
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_BACKLOG = 1024
_PREFIX = "unix:"
_LONGEST_PATH = 107
"""Bytes that the kernel has room for."""


@dataclass(frozen=True)
class TcpAddress:
    """An address and a port; port 0 is any free one."""

    host: str
    port: int

    def listen(self) -> socket.socket:
        """A socket that listens there; OSError if that can't be."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = socket.create_server((self.host, self.port), family=family, backlog=_BACKLOG)
        sock.setblocking(False)
        return sock

    def remove(self) -> None:
        """Leave nothing behind."""


@dataclass(frozen=True)
class UnixAddress:
    """A socket in the file system, for its owner alone; best in a folder of its own."""

    path: Path

    def listen(self) -> socket.socket:
        """A socket that listens there, in the place of one that has been left behind; OSError if that can't be."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._clear()
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(str(self.path))
            # Before it listens, nobody gets through.
            self.path.chmod(0o600)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        return sock

    def remove(self) -> None:
        """Leave nothing behind."""
        self.path.unlink(missing_ok=True)

    def _clear(self) -> None:
        if not self.path.is_socket():
            return
        with socket.socket(socket.AF_UNIX) as probe, suppress(ConnectionRefusedError, FileNotFoundError):
            probe.settimeout(1)
            probe.connect(str(self.path))
            raise OSError(errno.EADDRINUSE, "somebody listens there", str(self.path))
        self.path.unlink(missing_ok=True)


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """`host:port` (an IPv6 address in brackets) or `unix:/path`; ValueError if it is neither."""
    if text.startswith(_PREFIX):
        path = Path(text.removeprefix(_PREFIX))
        if not path.is_absolute() or len(bytes(path)) > _LONGEST_PATH:
            raise ValueError("the path of a socket must be absolute, and short")
        return UnixAddress(path)
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})", text)
    if found is None or int(found[3]) > 65535:
        raise ValueError("must be host:port or unix:/path")
    return TcpAddress(found[1] or found[2], int(found[3]))
