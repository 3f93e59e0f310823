"""OpenSSH's own way to a machine behind another: a server that lets through, and a server to get to."""

import getpass
import os
from pathlib import Path

import asyncssh

from tests.bench.bench import NotAvailableError
from tests.bench.processes import Child
from tests.bench.ssh.keys import write_key
from tests.support.ports import free_port

_SERVER = Path("/usr/sbin/sshd")
_SEPARATION = Path("/run/sshd")
"""Where a server started by root locks in what has not logged in; the machine makes it with its own server."""
_CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PrintLastLog no
LogLevel ERROR
"""


class Sshd(Child):
    """One server with keys of its own; it lets in whoever runs the bench."""

    def __init__(self, name: str, folder: Path, *, public_line: str) -> None:
        if not _SERVER.exists():
            raise NotAvailableError(f"there is no {_SERVER} (Debian: apt-get install openssh-server)")
        if os.geteuid() == 0:
            _SEPARATION.mkdir(mode=0o755, exist_ok=True)
        self.port, self.user = free_port(), getpass.getuser()
        own = folder / name
        own.mkdir(parents=True)
        write_key(own / "host_key", asyncssh.generate_private_key("ssh-ed25519"))
        (own / "authorized_keys").write_text(f"{public_line}\n")
        (own / "config").write_text(_CONFIG.format(port=self.port, folder=own))
        super().__init__(name, [str(_SERVER), "-D", "-e", "-f", str(own / "config")], folder)
