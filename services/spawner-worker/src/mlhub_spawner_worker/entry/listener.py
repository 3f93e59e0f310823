"""Listens on the machine it runs on, and hands each connection to a relay that asks for it.

Run as a program, handed to an interpreter as text, inside a workspace whose loopback is its own. Its first argument is
a port of the loopback, 0 for any free one, or `agent` for a socket in a folder that only its user enters; its second is
the abstract name where relays take connections. It says where it listens in a line, then who has connected in a line
for each connection, and ends with its standard input.
"""

import os
import shutil
import socket
import sys
import tempfile
import threading

PATIENCE = 20
"""Seconds for a relay to come for a connection."""
WAITING = 64


def listen(where: str) -> tuple[socket.socket, str]:
    """A socket that listens, and its port or path."""
    if where == "agent":
        path = os.path.join(tempfile.mkdtemp(prefix="mlhub-agent-"), "socket")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(WAITING)
        return listener, path
    listener = socket.create_server(("127.0.0.1", int(where)), backlog=WAITING)
    return listener, str(listener.getsockname()[1])


def write(line: str) -> None:
    """A line, to standard output."""
    os.write(1, line.encode() + b"\n")


def end_with_input(address: str) -> None:
    """Wait for the end of standard input, then end everything."""
    while os.read(0, 1024):
        pass
    if address.startswith("/"):
        shutil.rmtree(os.path.dirname(address), ignore_errors=True)
    os._exit(0)


def hand_over(listener: socket.socket, counter: socket.socket) -> None:
    """Take the next connection, tell of it and give it away."""
    connection, peer = listener.accept()
    with connection:
        write("%s %s" % (peer[:2] if isinstance(peer, tuple) else ("", 0)))
        try:
            taker, _ = counter.accept()
        except TimeoutError:
            return
        with taker:
            socket.send_fds(taker, [b"\n"], [connection.fileno()])


def main(where: str, name: str) -> int:
    """Until the input ends."""
    counter = socket.socket(socket.AF_UNIX)
    counter.settimeout(PATIENCE)
    try:
        counter.bind("\0" + name)
        listener, address = listen(where)
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 1
    counter.listen(WAITING)
    write(f"\x1e{os.getpid()}")
    write(address)
    threading.Thread(target=end_with_input, args=(address,), daemon=True).start()
    while True:
        try:
            hand_over(listener, counter)
        except OSError:
            continue  # one that has gone again, or one taker that has


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
