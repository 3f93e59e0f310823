"""Stands for a workspace's server: answers where JUPYTERHUB_SERVICE_URL says, in milliseconds after its start.

Run as a program, with the standard library alone. Variables of the test steer it: FAKE_DELAY (seconds before it
listens), FAKE_EXIT (exit code, at once), FAKE_STRAY (leave a child in a session of its own), FAKE_STUBBORN (ignore
SIGTERM), FAKE_MUTE (never listen).
"""

import os
import signal
import socket
import subprocess
import sys
import time

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def main() -> None:
    print("the server starts", flush=True)
    if "FAKE_STRAY" in os.environ:
        subprocess.Popen(["/bin/sleep", "3600"], start_new_session=True)
    if "FAKE_STUBBORN" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "FAKE_EXIT" in os.environ:
        print("the server gives up", flush=True)
        sys.exit(int(os.environ["FAKE_EXIT"]))
    time.sleep(float(os.environ.get("FAKE_DELAY", "0")))
    if "FAKE_MUTE" in os.environ:
        time.sleep(3600)
    host = os.environ["JUPYTERHUB_SERVICE_URL"].split("/")[2]
    address, _, port = host.partition(":")
    with socket.create_server((address, int(port))) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(ANSWER)


if __name__ == "__main__":
    main()
