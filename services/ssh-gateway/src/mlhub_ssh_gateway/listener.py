"""The gateway's port: accepts, keeps floods out, and hands on who may try to log in."""

import asyncio
import socket
from types import TracebackType
from typing import Self

import asyncssh
import structlog

from mlhub_ssh_gateway.admission import Admission
from mlhub_ssh_gateway.connection import Client, Desk
from mlhub_ssh_gateway.metrics import REFUSED
from mlhub_ssh_gateway.settings import SshGatewaySettings

log = structlog.get_logger(__name__)

_BACKLOG = 1024
_NO_DESCRIPTORS = 0.2
"""Seconds to wait when the system has no descriptor left."""
_FAREWELL = 3.0
"""Seconds for clients to take leave when the gateway ends."""
_MISSED_KEEPALIVES = 3

_VERSION = "OpenSSH_9.2_mlhub"
"""Clients of OpenSSH say that they read no more (`eow@openssh.com`) only to what calls itself OpenSSH."""
_KEY_EXCHANGES = ("mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org")
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr")
"""The last one for clients without GCM; OpenSSH takes the first it prefers, which is not it."""
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
_SIGNATURES = ("ssh-ed25519", "sk-ssh-ed25519@openssh.com", "rsa-sha2-512", "rsa-sha2-256", "ecdsa-sha2-nistp256")


class Listener:
    """Listens while it is entered."""

    def __init__(self, settings: SshGatewaySettings, host_key: asyncssh.SSHKey, desk: Desk) -> None:
        self._settings, self._host_key, self._desk = settings, host_key, desk
        self._admission = Admission(
            handshakes=settings.max_handshakes,
            handshakes_per_address=settings.max_handshakes_per_address,
            waiting=settings.max_waiting,
            rate=settings.connections_per_second,
            patience=settings.login_timeout,
            refused=settings.refused_networks,
        )
        self._sock: socket.socket | None = None
        self._options: asyncssh.SSHServerConnectionOptions
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens; 0 if it does not."""
        return int(self._sock.getsockname()[1]) if self._sock else 0

    async def __aenter__(self) -> Self:
        self._options = await asyncssh.SSHServerConnectionOptions.construct(config=None, **self._option_fields())
        family = socket.AF_INET6 if ":" in self._settings.listen_host else socket.AF_INET
        address = (self._settings.listen_host, self._settings.listen_port)
        self._sock = socket.create_server(address, family=family, backlog=_BACKLOG)
        self._sock.setblocking(False)
        log.info("ssh.listening", host=address[0], port=self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sock is not None:
            # `run` still waits on it, and the loop must not be left with a descriptor that means something else soon.
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None
        for client in tuple(self._desk.clients):
            client.dismiss("the gateway is stopping")
        if self._clients:
            _, late = await asyncio.wait(self._clients, timeout=_FAREWELL)
            for task in late:
                task.cancel()

    async def run(self) -> None:
        """Accept for ever."""
        loop = asyncio.get_running_loop()
        while self._sock is not None:
            try:
                sock, address = await loop.sock_accept(self._sock)
            except OSError as error:
                log.warning("ssh.accept_failed", error=str(error))
                await asyncio.sleep(_NO_DESCRIPTORS)
                continue
            if (reason := self._admission.refusal(address[0])) is not None:
                self._refuse(sock, reason)
                continue
            task = asyncio.ensure_future(self._serve(sock, address[0]))
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)

    async def _serve(self, sock: socket.socket, address: str) -> None:
        try:
            async with self._admission.turn(address):
                connection = await asyncssh.run_server(
                    sock, options=self._options, server_factory=lambda: Client(self._desk, address)
                )
        except TimeoutError:
            self._refuse(sock, "waited")
            return
        except (OSError, asyncssh.Error) as error:
            REFUSED.labels(reason="handshake").inc()
            log.debug("ssh.no_login", client=address, error=str(error) or type(error).__name__)
            sock.close()
            return
        await connection.wait_closed()

    def _refuse(self, sock: socket.socket, reason: str) -> None:
        REFUSED.labels(reason=reason).inc()
        sock.close()

    def _option_fields(self) -> dict[str, object]:
        settings = self._settings
        return {
            "server_factory": asyncssh.SSHServer,
            "server_host_keys": [self._host_key],
            "server_version": _VERSION,
            "encoding": None,
            "line_editor": False,
            "allow_scp": False,
            "x11_forwarding": False,
            "agent_forwarding": True,
            "host_based_auth": False,
            "kbdint_auth": False,
            "gss_host": None,
            "login_timeout": settings.login_timeout.total_seconds(),
            "keepalive_interval": settings.keepalive.total_seconds(),
            "keepalive_count_max": _MISSED_KEEPALIVES,
            "kex_algs": list(_KEY_EXCHANGES),
            "encryption_algs": list(_CIPHERS),
            "mac_algs": list(_MACS),
            "signature_algs": list(_SIGNATURES),
            "compression_algs": None,
        }
