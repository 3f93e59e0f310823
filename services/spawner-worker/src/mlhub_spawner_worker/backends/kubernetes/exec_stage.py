"""How a program of a pod gets its arguments and its environment, for which the API has no place but the URL.

URLs are kept in audit logs, and whatever is between bounds their length. So what is executed is always the same small
script, of a shell alone: it says that it is there, reads as many lines as it was told, and becomes what they say. A
terminal neither echoes nor changes them, and is as before when the program begins.
"""

import re
import shlex
from collections.abc import Mapping, Sequence

from mlhub_spawner_worker.entry import EntryError

READY = b"\x1e"
"""What the script says when it is."""

_SCRIPT = r"""
mlhub_was= mlhub_text=
if [ -t 0 ]; then
    mlhub_was=$(stty -g) && stty raw -echo || {
        echo "a terminal needs stty in the workspace's image, which has none"
        exit 127
    }
fi
printf '\036'
while [ "$1" -gt 0 ]; do
    IFS= read -r mlhub_line || exit
    mlhub_text="$mlhub_text$mlhub_line
"
    set -- "$(($1 - 1))"
done
[ -z "$mlhub_was" ] || stty "$mlhub_was"
eval "$mlhub_text"
"""
"""Argument: how many lines there will be. The names are those of nobody's environment."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def script(text: bytes) -> list[str]:
    """The command to execute."""
    return ["/bin/sh", "-c", _SCRIPT, "mlhub", str(text.count(b"\n"))]


def text(command: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """What the script is then to be told; EntryError if no program can be given it."""
    # What a shell takes for no name, it does not hand on either.
    exports = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items() if _NAME.fullmatch(name)]
    lines = "".join([*exports, f"exec {shlex.join(command)}\n"])
    if "\0" in lines:
        raise EntryError("no program can be given what has a zero byte in it")
    return lines.encode(errors="surrogateescape")
