"""Carries connections from inside the machine it runs on, as many as are wanted, over standard input and output.

Run as a program, handed to an interpreter as text, inside a workspace whose loopback is its own: one process for all
its connections. Its first line is a record separator and its process id, as everything that is entered begins with.
Then frames go both ways: the number of a connection, what it is about, and how many bytes. Neither side sends more of
a connection than the other has granted, so a slow one holds up nobody else. It ends with its standard input.
"""

import collections
import contextlib
import os
import selectors
import socket
import struct
import sys
import threading

FRAME = struct.Struct("!IBI")
OPEN, OPENED, FAILED, DATA, EOF, CLOSE, GRANT = range(7)
WITH_TEXT = frozenset({OPEN, FAILED, DATA})
"""Kinds that so many bytes follow; GRANT counts bytes of the other direction, the others count none."""
WINDOW = 128 * 1024
"""What both sides grant at first."""
PIECE = 32 * 1024
SECONDS_TO_CONNECT = 10


def connect(host: str, port: int) -> socket.socket:
    """A connection to the port, of this machine whichever family it listens on."""
    if host != "localhost":
        return socket.create_connection((host, port), timeout=SECONDS_TO_CONNECT)
    # Not left to the name: hosts files of images may give it one family alone.
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=SECONDS_TO_CONNECT)
    except OSError as error:
        try:
            return socket.create_connection(("::1", port), timeout=SECONDS_TO_CONNECT)
        except OSError:
            raise error from None


class Connection:
    """One of them."""

    def __init__(self, number: int, made: socket.socket) -> None:
        self.number, self.socket = number, made
        self.granted = WINDOW
        self.waiting = bytearray()
        self.hears_no_more = self.says_no_more = self.is_shut = False
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def events(self) -> int:
        """What there is to wait for."""
        reads = self.granted > 0 and not self.says_no_more
        return (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if self.waiting else 0)


class Carrier:
    """All of them."""

    def __init__(self) -> None:
        self.connections: dict[int, Connection] = {}
        self.selector = selectors.DefaultSelector()
        self.input = bytearray()
        self.made: collections.deque[tuple[int, socket.socket | OSError]] = collections.deque()
        self.wanted: set[int] = set()
        self.made_one, self.wake = os.pipe()

    def run(self) -> None:
        """Until the input ends."""
        self.selector.register(0, selectors.EVENT_READ)
        self.selector.register(self.made_one, selectors.EVENT_READ)
        while True:
            for key, events in self.selector.select():
                if key.fd == 0:
                    data = os.read(0, 2 * WINDOW)
                    if not data:
                        return
                    self.input += data
                    self.take_frames()
                elif key.fd == self.made_one:
                    os.read(self.made_one, 1)
                    self.take_made(*self.made.popleft())
                else:
                    self.serve(key.data, events)

    def take_frames(self) -> None:
        """All that have come as a whole."""
        at = 0
        while len(self.input) - at >= FRAME.size:
            number, kind, count = FRAME.unpack_from(self.input, at)
            end = at + FRAME.size + (count if kind in WITH_TEXT else 0)
            if end > len(self.input):
                break
            self.take(number, kind, bytes(self.input[at + FRAME.size : end]), count)
            at = end
        del self.input[:at]

    def take(self, number: int, kind: int, text: bytes, count: int) -> None:
        """One frame."""
        if kind == OPEN:
            host, _, port = text.decode().rpartition(" ")
            self.wanted.add(number)
            try:
                threading.Thread(target=self.make, args=(number, host, int(port)), daemon=True).start()
            except RuntimeError as error:
                self.take_made(number, OSError(str(error)))
            return
        connection = self.connections.get(number)
        if kind == CLOSE:
            self.wanted.discard(number)
        if connection is None:
            return
        if kind == DATA:
            connection.waiting += text
        elif kind == GRANT:
            connection.granted += count
        elif kind == EOF:
            connection.hears_no_more = True
        self.serve(connection, 0)
        if kind == CLOSE:
            self.drop(connection)

    def make(self, number: int, host: str, port: int) -> None:
        """Connect, in a thread: names and far hosts take their time."""
        try:
            self.made.append((number, connect(host, port)))
        except (OSError, UnicodeError) as error:
            self.made.append((number, error if isinstance(error, OSError) else OSError(str(error))))
        os.write(self.wake, b".")

    def take_made(self, number: int, made: "socket.socket | OSError") -> None:
        """What came of it."""
        is_wanted = number in self.wanted
        self.wanted.discard(number)
        if isinstance(made, OSError):
            send(number, FAILED, str(made.strerror or made).encode())
        elif not is_wanted:
            made.close()
        else:
            self.connections[number] = connection = Connection(number, made)
            send(number, OPENED)
            self.selector.register(made, connection.events(), connection)

    def serve(self, connection: Connection, events: int) -> None:
        """Pass on what can be, and wait for what can't."""
        if connection.number not in self.connections:
            return
        if connection.waiting:
            self.pass_input(connection)
        if connection.hears_no_more and not connection.waiting and not connection.is_shut:
            connection.is_shut = True
            with contextlib.suppress(OSError):  # it has gone, which its other direction tells
                connection.socket.shutdown(socket.SHUT_WR)
        if events & selectors.EVENT_READ and connection.granted and not self.pass_output(connection):
            return
        if connection.says_no_more and connection.is_shut:
            self.drop(connection)
            return
        self.watch(connection)

    def pass_input(self, connection: Connection) -> None:
        """To the socket."""
        try:
            count = connection.socket.send(connection.waiting)
        except BlockingIOError:
            return
        except OSError:
            count = len(connection.waiting)  # it reads no more; what it still says comes the other way
        del connection.waiting[:count]
        send(connection.number, GRANT, count=count)

    def pass_output(self, connection: Connection) -> bool:
        """From the socket; False if that was its end altogether."""
        try:
            data = connection.socket.recv(min(PIECE, connection.granted))
        except BlockingIOError:
            return True
        except OSError:
            self.drop(connection)
            return False
        connection.granted -= len(data)
        if data:
            send(connection.number, DATA, data)
        else:
            connection.says_no_more = True
            send(connection.number, EOF)
        return True

    def watch(self, connection: Connection) -> None:
        """Wait for what it needs next."""
        watched, events = connection.socket.fileno() in self.selector.get_map(), connection.events()
        if watched and events:
            self.selector.modify(connection.socket, events, connection)
        elif watched:
            self.selector.unregister(connection.socket)
        elif events:
            self.selector.register(connection.socket, events, connection)

    def drop(self, connection: Connection) -> None:
        """Let it go, and say so."""
        if self.connections.pop(connection.number, None) is None:
            return
        if connection.socket.fileno() in self.selector.get_map():
            self.selector.unregister(connection.socket)
        connection.socket.close()
        send(connection.number, CLOSE)


def send(number: int, kind: int, text: bytes = b"", *, count: int = 0) -> None:
    """A frame, to standard output, which is always read."""
    rest = memoryview(FRAME.pack(number, kind, len(text) or count) + text)
    while rest:
        rest = rest[os.write(1, rest) :]


if __name__ == "__main__":
    sys.stdout.write(f"\x1e{os.getpid()}\n")
    sys.stdout.flush()
    try:
        Carrier().run()
    finally:
        # At once: a thread that still connects is not waited for.
        os._exit(0)
