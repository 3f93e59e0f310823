"""Which ports programs listen on, as the kernel's tables have it, on this machine or in a container."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import PurePosixPath

LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
"""In the order in which people try them."""

_LISTENS = "0A"
_STATE, _INODE = 3, 9
"""Of the fields of a line."""
_LONGEST_NAME = 60
_LAST_PORT = 65535

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Socket:
    """A TCP socket that listens."""

    address: Address
    port: int
    inode: int

    def takes(self, address: Address) -> bool:
        """Whether it may get what comes to this address of its machine."""
        # Of all of IPv6 may mean IPv4 too: the table does not say.
        return self.address == address or (self.address.is_unspecified and self.address.version >= address.version)


def sockets(table: str) -> list[Socket]:
    """The listening ones of `/proc/net/tcp` or `tcp6`; what is no line of theirs is passed over."""
    found = []
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > _INODE and fields[_STATE] == _LISTENS:
            with suppress(ValueError):
                address, _, port = fields[1].partition(":")
                if 0 < (number := int(port, 16)) <= _LAST_PORT:
                    found.append(Socket(_address(address), number, int(fields[_INODE])))
    return found


def program(command: Sequence[str]) -> str:
    """What people call a program that was started like this: of an interpreter, what it runs."""
    if not command:
        return ""
    name, rest = PurePosixPath(command[0]).name, command[1:]
    if name.startswith(("python", "node", "ruby", "perl", "java", "sh", "bash")):
        if "-m" in rest[:4]:
            name = next(iter(rest[rest.index("-m") + 1 :]), name)
        elif rest and not rest[0].startswith("-"):
            name = PurePosixPath(rest[0]).name
    return "".join(letter for letter in name if letter.isprintable())[:_LONGEST_NAME]


def _address(text: str) -> Address:
    # Words of four bytes, each as this machine has numbers.
    words = [bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    address = ip_address(packed)
    return getattr(address, "ipv4_mapped", None) or address
