"""A pseudo-terminal set up as an SSH client asks for it (RFC 4254, section 8)."""

import fcntl
import os
import struct
import termios
from collections.abc import Mapping
from dataclasses import dataclass

from mlhub_spawner_worker.entry import Size, modes

_IUTF8 = 0o040000
"""Python's termios does not know it."""


@dataclass(frozen=True)
class Pair:
    """Both ends of a pseudo-terminal."""

    ours: int
    theirs: int

    @property
    def name(self) -> str:
        """Path of the program's end."""
        return os.ttyname(self.theirs)


def open_terminal(size: Size, wanted: Mapping[int, int]) -> Pair:
    """A new pseudo-terminal of this size in these modes."""
    terminal = Pair(*os.openpty())
    set_size(terminal.ours, size)
    _set_modes(terminal.theirs, wanted)
    return terminal


def set_size(fd: int, size: Size) -> None:
    """Tell the terminal its size; its foreground programs get SIGWINCH."""
    columns, rows, width, height = (min(value, 0xFFFF) for value in size)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, width, height))


def _set_modes(fd: int, wanted: Mapping[int, int]) -> None:
    attributes = termios.tcgetattr(fd)
    characters = attributes[6]
    for opcode, value in wanted.items():
        if (name := modes.CHARACTERS.get(opcode)) is not None:
            if (character := getattr(termios, f"V{name.upper()}", None)) is not None:
                characters[character] = bytes([0 if value == modes.NO_CHARACTER else value & 0xFF])
        elif opcode in modes.FLAGS:
            place, name = modes.FLAGS[opcode]
            flag = getattr(termios, name.upper(), _IUTF8 if name == "iutf8" else 0)
            attributes[place] = attributes[place] | flag if value else attributes[place] & ~flag
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
