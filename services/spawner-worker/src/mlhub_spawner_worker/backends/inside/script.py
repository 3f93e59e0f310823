"""What is run in a workspace to become the program that somebody asked for.

An image promises no more than `/bin/sh`. Its first words, on the first line of output, are a record separator and the
process id in the workspace's own numbering: an engine tells the host's, if any, by which nothing can be signalled from
inside.
"""

import inspect
import signal

from mlhub_spawner_worker.entry import Order, Terminal, What, carrier, listener, modes, relay, sftp_server

MARK = b"\x1e"
"""What the first line begins with."""

_SHELL = ["/bin/sh", "-c"]

_PREPARE = r"""
[ -z "$1" ] || cd -- "$1" 2>/dev/null
for shell in "${SHELL:-}" /bin/bash /bin/sh; do
    [ -f "$shell" ] && [ -x "$shell" ] && break
done
export SHELL="$shell"
[ -n "${USER:-}" ] || USER=$(id -un 2>/dev/null)
export USER LOGNAME="$USER"
if [ -n "$2" ]; then
    name=$(tty 2>/dev/null) && export SSH_TTY="$name"
    stty $2 2>/dev/null || printf '%s\n' "$2" | while read -r mode; do stty $mode </dev/tty 2>/dev/null; done
fi
printf '\036%s\n' "$$"
"""
"""Arguments: the directory, the terminal's modes one a line (none without a terminal), then the program's own."""

_LOGIN = """
case "$SHELL" in
    */sh | */bash | */dash | */ash | */zsh | */ksh) ;;
    *) exec "$SHELL" -l ;;
esac
export MLHUB_PATH="$PATH"
exec "$SHELL" -l -c '
    case ":$PATH:" in
        *":$MLHUB_PATH:"*) ;;
        *) export PATH="$MLHUB_PATH:$PATH" ;;
    esac
    unset MLHUB_PATH
    exec "$SHELL"
'
"""
"""The profile of a distribution sets PATH anew, as after a login to a machine: without what the image has put there."""

_RUN = {
    What.SHELL: _LOGIN,
    What.COMMAND: 'exec "$SHELL" -c "$3"',
    What.SFTP: """
for server in $4; do
    [ -x "$server" ] && exec "$server"
done
command -v python3 >/dev/null && exec python3 -I -c "$3"
echo "SFTP needs python3 or the sftp-server of OpenSSH in this workspace's image, and it has neither" >&2
exit 127
""",
}

NEEDS_PYTHON = "this needs python3 in the workspace's image, which has none"

_HELPER = f"""
command -v python3 >/dev/null && exec python3 -I -S -c "$@"
echo "{NEEDS_PYTHON}" >&2
exit 127
"""

_BREAK_PIPE = """
for file in /proc/[0-9]*/stat; do
    read -r line 2>/dev/null <"$file" || continue
    pid=${line%% *}
    set -- "$1" ${line##*) }
    [ "$4" = "$1" ] && [ "$pid" != "$1" ] && kill -PIPE "$pid" && found=1
done
[ -n "$found" ] || kill -PIPE "$1"
"""
"""To what a group's leader has started if there is anything: a shell goes on when the pipe of its program breaks."""

_LEFT_OUT = frozenset({"pendin", "swtc", "cs7", "cs8"})
"""Modes that `stty` does not know everywhere, or that nobody sets on a terminal without a wire."""
_OTHER_NAMES = {"reprint": "rprnt"}


def program(order: Order, directory: str | None) -> list[str]:
    """The command of an exec that becomes what was ordered."""
    texts = {What.COMMAND: order.line, What.SFTP: inspect.getsource(sftp_server)}
    script = _PREPARE + _RUN[order.what]
    terminal = _modes(order.terminal) if order.terminal else ""
    servers = " ".join(sftp_server.OPENSSH)
    return [*_SHELL, script, "mlhub", directory or "", terminal, texts.get(order.what, ""), servers]


def carrying() -> list[str]:
    """The command of an exec that carries connections from inside."""
    return [*_SHELL, _HELPER, "mlhub", inspect.getsource(carrier)]


def taking(name: str) -> list[str]:
    """The command of an exec that takes a connection from the listener of this name."""
    return [*_SHELL, _HELPER, "mlhub", inspect.getsource(relay), name]


def listening(where: int | None, name: str) -> list[str]:
    """The command of an exec that listens on a port, or for an SSH agent; its connections are taken by name."""
    return [*_SHELL, _HELPER, "mlhub", inspect.getsource(listener), "agent" if where is None else str(where), name]


def kill(number: signal.Signals, group: int) -> list[str]:
    """The command of an exec that signals a group."""
    return [*_SHELL, 'kill -"$1" -"$2"', "mlhub", number.name.removeprefix("SIG"), str(group)]


def break_pipe(group: int) -> list[str]:
    """The command of an exec that does to a group what writing to a broken pipe would."""
    return [*_SHELL, _BREAK_PIPE, "mlhub", str(group)]


def _modes(terminal: Terminal) -> str:
    columns, rows, *_ = terminal.size
    wanted = [f"rows {rows}", f"cols {columns}"] if rows and columns else []
    for opcode, value in terminal.modes.items():
        name = modes.CHARACTERS.get(opcode) or modes.FLAGS.get(opcode, (0, ""))[1]
        if not name or name in _LEFT_OUT:
            continue
        name = _OTHER_NAMES.get(name, name)
        if opcode in modes.CHARACTERS:
            wanted.append(f"{name} {_character(value & 0xFF)}")
        else:
            wanted.append(name if value else f"-{name}")
    return "\n".join(wanted) or "echo"


def _character(value: int) -> str:
    if value in (0, modes.NO_CHARACTER):
        return "undef"
    # A number of one digit would be taken for the character.
    return f"^{chr(value ^ 0x40)}" if value < 0x20 or value == 0x7F else str(value)
