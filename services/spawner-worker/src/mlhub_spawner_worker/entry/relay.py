"""Joins a port of the machine it runs on to standard input and output.

Run as a program, handed to an interpreter as text, inside a workspace whose loopback is its own. Its first line of
output comes when it is connected: a record separator and its process id, as everything that is entered begins with.
"""

import os
import socket
import sys
import threading

PIECE = 64 * 1024
SECONDS_TO_CONNECT = 10


def connect(port: int) -> socket.socket:
    """A connection to the port, whichever family it listens on."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=SECONDS_TO_CONNECT)
    except OSError as error:
        try:
            connection = socket.create_connection(("::1", port), timeout=SECONDS_TO_CONNECT)
        except OSError:
            raise error from None
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def write(data: bytes) -> None:
    """All of it, to standard output."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def send_input(connection: socket.socket) -> None:
    """Standard input to the port, its end too."""
    try:
        while data := os.read(0, PIECE):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it reads no more; what it still says, and its end, come the other way


def main(port: int) -> int:
    """Until the port has said all."""
    try:
        connection = connect(port)
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 1
    write(b"\x1e%d\n" % os.getpid())
    threading.Thread(target=send_input, args=(connection,), daemon=True).start()
    try:
        while data := connection.recv(PIECE):
            write(data)
    except OSError:
        pass  # reset, or nobody reads what it says
    return 0


if __name__ == "__main__":
    # At once: a thread that still reads standard input is not waited for.
    os._exit(main(int(sys.argv[1])))
