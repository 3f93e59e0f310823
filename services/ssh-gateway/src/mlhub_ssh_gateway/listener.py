"""The gateway's ports: accept, keep floods out, and hand on who may try to log in."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import asyncssh
import structlog

from mlhub_shared.runtime.hosts import Callers
from mlhub_shared.runtime.own_network import network_of
from mlhub_ssh_gateway.admission import Admission
from mlhub_ssh_gateway.connection import Client, Desk
from mlhub_ssh_gateway.metrics import REFUSED
from mlhub_ssh_gateway.ports import Address, TcpAddress, parse_address
from mlhub_ssh_gateway.proxied import BadHeader, read_origin
from mlhub_ssh_gateway.settings import SshGatewaySettings

log = structlog.get_logger(__name__)

_HEADER = 5.0
"""Seconds for a proxy to say whom it hands on."""
_MOST_HEADERS = 512
"""Of those connections that have not said it yet, all together; more are closed at once."""
_NO_DESCRIPTORS = 0.2
"""Seconds to wait when the system has no descriptor left."""
_FAREWELL = 3.0
"""Seconds for clients to take leave when the gateway ends."""
_MISSED_KEEPALIVES = 3

_VERSION = "OpenSSH_9.2_mlhub"
"""Clients of OpenSSH say that they read no more (`eow@openssh.com`) only to what calls itself OpenSSH."""
_KEY_EXCHANGES = ("mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org")
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr")
"""The last one for clients without GCM."""
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
        self._own = TcpAddress(settings.listen_host, settings.listen_port)
        self._proxied = parse_address(settings.proxied_listen) if settings.proxied_listen else None
        self._proxies = Callers(())
        self._socks: dict[Address, socket.socket] = {}
        self._options: asyncssh.SSHServerConnectionOptions
        self._clients: set[asyncio.Task[None]] = set()
        self._without_header = 0

    @property
    def port(self) -> int:
        """Where it listens for clients that come by themselves; 0 if it does not."""
        sock = self._socks.get(self._own)
        return int(sock.getsockname()[1]) if sock else 0

    async def __aenter__(self) -> Self:
        self._options = await asyncssh.SSHServerConnectionOptions.construct(config=None, **self._option_fields())
        self._proxies = self._callers()
        await self._proxies.look()
        for address in (self._own, self._proxied):
            if address is not None:
                self._socks[address] = address.listen()
        log.info("ssh.listening", host=self._own.host, port=self.port, proxied=self._settings.proxied_listen)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for address, sock in self._socks.items():
            # `run` still waits on it, and the loop must not be left with a descriptor that means something else soon.
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
            address.remove()
        self._socks.clear()
        for client in tuple(self._desk.clients):
            client.dismiss("the gateway is stopping")
        if self._clients:
            _, late = await asyncio.wait(self._clients, timeout=_FAREWELL)
            for task in late:
                task.cancel()

    async def run(self) -> None:
        """Accept for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._proxies.follow())
            for address, sock in self._socks.items():
                group.create_task(self._accept(sock, self._take if address is self._own else self._take_proxied))

    async def _accept(self, listening: socket.socket, take: Callable[[socket.socket, str], None]) -> None:
        loop = asyncio.get_running_loop()
        while listening.fileno() >= 0:
            try:
                sock, address = await loop.sock_accept(listening)
            except OSError as error:
                log.warning("ssh.accept_failed", error=str(error))
                await asyncio.sleep(_NO_DESCRIPTORS)
                continue
            take(sock, address[0] if address else "")
            # Where somebody waits, accepting does not: a flood would be all that the loop is busy with.
            await asyncio.sleep(0)

    def _take(self, sock: socket.socket, address: str) -> None:
        if self._is_admitted(sock, address):
            self._keep(self._serve(sock, address))

    def _take_proxied(self, sock: socket.socket, proxy: str) -> None:
        if proxy and not self._proxies.admits(proxy):
            self._refuse(sock, "no-proxy")
        elif self._without_header >= _MOST_HEADERS:
            self._refuse(sock, "full")
        else:
            self._without_header += 1
            self._keep(self._serve_proxied(sock, proxy))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve_proxied(self, sock: socket.socket, proxy: str) -> None:
        """Whoever a proxy hands on is treated as if he had come by himself."""
        try:
            async with asyncio.timeout(_HEADER):
                origin = await read_origin(sock)
        except (BadHeader, TimeoutError, OSError) as error:
            log.debug("ssh.no_header", proxy=proxy, error=str(error) or type(error).__name__)
            self._refuse(sock, "header")
            return
        except asyncio.CancelledError:
            sock.close()
            raise
        finally:
            self._without_header -= 1
        if origin is None:
            sock.close()
        elif self._is_admitted(sock, origin):
            await self._serve(sock, origin)

    async def _serve(self, sock: socket.socket, address: str) -> None:
        is_waiting = True
        try:
            async with self._admission.turn(address):
                is_waiting = False
                connection = await asyncssh.run_server(
                    sock, options=self._options, server_factory=lambda: Client(self._desk, address)
                )
        except TimeoutError:
            self._refuse(sock, "waited")
            return
        except Exception as error:  # noqa: BLE001  (what strangers send sets off all sorts of errors)
            REFUSED.labels(reason="handshake").inc()
            log.debug("ssh.no_login", client=address, error=str(error) or type(error).__name__)
            sock.close()
            return
        except asyncio.CancelledError:
            if is_waiting:
                sock.close()
            raise
        try:
            await connection.wait_closed()
        finally:
            # Also of whoever did not take leave in time.
            connection.abort()

    def _is_admitted(self, sock: socket.socket, address: str) -> bool:
        if (reason := self._admission.refusal(address)) is not None:
            self._refuse(sock, reason)
        return reason is None

    def _callers(self) -> Callers:
        places = self._settings.proxied_from
        if not isinstance(places, str):
            return Callers(places)
        return Callers([network_of(self._proxied.host)] if isinstance(self._proxied, TcpAddress) else ())

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
