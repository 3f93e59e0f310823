"""The terminal modes that an SSH client can ask for (RFC 4254, section 8), named as termios and `stty` name them."""

CHARACTERS = {
    1: "intr", 2: "quit", 3: "erase", 4: "kill", 5: "eof", 6: "eol", 7: "eol2", 8: "start", 9: "stop",
    10: "susp", 12: "reprint", 13: "werase", 14: "lnext", 16: "swtc", 18: "discard",
}  # fmt: skip
"""Opcodes whose value is a control character; termios calls them `VINTR` and so on."""

INPUT, OUTPUT, CONTROL, LOCAL = 0, 1, 2, 3
"""Places in the list of `termios.tcgetattr`."""

FLAGS = {
    30: (INPUT, "ignpar"), 31: (INPUT, "parmrk"), 32: (INPUT, "inpck"), 33: (INPUT, "istrip"), 34: (INPUT, "inlcr"),
    35: (INPUT, "igncr"), 36: (INPUT, "icrnl"), 37: (INPUT, "iuclc"), 38: (INPUT, "ixon"), 39: (INPUT, "ixany"),
    40: (INPUT, "ixoff"), 41: (INPUT, "imaxbel"), 42: (INPUT, "iutf8"), 50: (LOCAL, "isig"), 51: (LOCAL, "icanon"),
    52: (LOCAL, "xcase"), 53: (LOCAL, "echo"), 54: (LOCAL, "echoe"), 55: (LOCAL, "echok"), 56: (LOCAL, "echonl"),
    57: (LOCAL, "noflsh"), 58: (LOCAL, "tostop"), 59: (LOCAL, "iexten"), 60: (LOCAL, "echoctl"),
    61: (LOCAL, "echoke"), 62: (LOCAL, "pendin"), 70: (OUTPUT, "opost"), 71: (OUTPUT, "olcuc"),
    72: (OUTPUT, "onlcr"), 73: (OUTPUT, "ocrnl"), 74: (OUTPUT, "onocr"), 75: (OUTPUT, "onlret"),
    90: (CONTROL, "cs7"), 91: (CONTROL, "cs8"), 92: (CONTROL, "parenb"), 93: (CONTROL, "parodd"),
}  # fmt: skip
"""Opcodes that switch a flag: where it is in the list of termios, and its name."""

NO_CHARACTER = 255
"""Means that no key does this."""
