"""Joins a connection that a listener hands out to standard input and output.

Run as a program, handed to an interpreter as text, inside a workspace whose loopback is its own. Its argument is the
abstract name of the listener. Its first line of output comes when it has the connection: a record separator and its
process id, as everything that is entered begins with. When the other side sends no more it says on standard error how
many bytes have come, and still passes on input: only then has everything been said.
"""

import os
import socket
import sys
import threading

PIECE = 64 * 1024
SECONDS_TO_TAKE = 10


def take(name: str) -> socket.socket:
    """The next connection that a listener has."""
    with socket.socket(socket.AF_UNIX) as counter:
        counter.settimeout(SECONDS_TO_TAKE)
        counter.connect("\0" + name)
        _, numbers, *_ = socket.recv_fds(counter, 1, 1)
    if not numbers:
        raise ConnectionAbortedError("the connection is gone")
    return socket.socket(fileno=numbers[0])


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


def main(name: str) -> int:
    """Until the other side has said all."""
    try:
        connection = take(name)
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 1
    connection.settimeout(None)
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    write(b"\x1e%d\n" % os.getpid())
    sending = threading.Thread(target=send_input, args=(connection,), daemon=True)
    sending.start()
    passed = 0
    try:
        while data := connection.recv(PIECE):
            write(data)
            passed += len(data)
    except OSError:
        return 0  # reset, or nobody reads what it says
    print(passed, file=sys.stderr, flush=True)
    sending.join()
    return 0


if __name__ == "__main__":
    # At once: after a reset a thread that still reads standard input is not waited for.
    os._exit(main(sys.argv[1]))
