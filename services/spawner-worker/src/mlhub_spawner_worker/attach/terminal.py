"""A pseudo-terminal set up as an SSH client asks for it (RFC 4254, section 8)."""

import fcntl
import os
import struct
import termios
from collections.abc import Mapping
from dataclasses import dataclass

Size = tuple[int, int, int, int]
"""Columns, rows, and both in pixels; 0 where unknown."""

_CHARACTERS = {
    1: "VINTR", 2: "VQUIT", 3: "VERASE", 4: "VKILL", 5: "VEOF", 6: "VEOL", 7: "VEOL2", 8: "VSTART", 9: "VSTOP",
    10: "VSUSP", 12: "VREPRINT", 13: "VWERASE", 14: "VLNEXT", 16: "VSWTC", 18: "VDISCARD",
}  # fmt: skip
"""Opcodes whose value is a control character."""

_FLAGS = {
    30: (0, "IGNPAR"), 31: (0, "PARMRK"), 32: (0, "INPCK"), 33: (0, "ISTRIP"), 34: (0, "INLCR"), 35: (0, "IGNCR"),
    36: (0, "ICRNL"), 37: (0, "IUCLC"), 38: (0, "IXON"), 39: (0, "IXANY"), 40: (0, "IXOFF"), 41: (0, "IMAXBEL"),
    42: (0, "IUTF8"), 50: (3, "ISIG"), 51: (3, "ICANON"), 52: (3, "XCASE"), 53: (3, "ECHO"), 54: (3, "ECHOE"),
    55: (3, "ECHOK"), 56: (3, "ECHONL"), 57: (3, "NOFLSH"), 58: (3, "TOSTOP"), 59: (3, "IEXTEN"), 60: (3, "ECHOCTL"),
    61: (3, "ECHOKE"), 62: (3, "PENDIN"), 70: (1, "OPOST"), 71: (1, "OLCUC"), 72: (1, "ONLCR"), 73: (1, "OCRNL"),
    74: (1, "ONOCR"), 75: (1, "ONLRET"), 90: (2, "CS7"), 91: (2, "CS8"), 92: (2, "PARENB"), 93: (2, "PARODD"),
}  # fmt: skip
"""Opcodes that switch a flag: which list of termios it is in, and its name there."""

_IUTF8 = 0o040000
"""Python's termios does not know it."""
_NO_CHARACTER = 255
"""Means in SSH that no key does this."""


@dataclass(frozen=True)
class Terminal:
    """Both ends of a pseudo-terminal."""

    ours: int
    theirs: int

    @property
    def name(self) -> str:
        """Path of the program's end."""
        return os.ttyname(self.theirs)


def open_terminal(size: Size, modes: Mapping[int, int]) -> Terminal:
    """A new pseudo-terminal of this size in these modes."""
    terminal = Terminal(*os.openpty())
    set_size(terminal.ours, size)
    _set_modes(terminal.theirs, modes)
    return terminal


def set_size(fd: int, size: Size) -> None:
    """Tell the terminal its size; its foreground programs get SIGWINCH."""
    columns, rows, width, height = (min(value, 0xFFFF) for value in size)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, width, height))


def _set_modes(fd: int, modes: Mapping[int, int]) -> None:
    attributes = termios.tcgetattr(fd)
    characters = attributes[6]
    for opcode, value in modes.items():
        if (character := getattr(termios, _CHARACTERS.get(opcode, ""), None)) is not None:
            characters[character] = bytes([0 if value == _NO_CHARACTER else value & 0xFF])
        elif opcode in _FLAGS:
            place, name = _FLAGS[opcode]
            flag = getattr(termios, name, _IUTF8 if name == "IUTF8" else 0)
            attributes[place] = attributes[place] | flag if value else attributes[place] & ~flag
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
