"""Connections that send nothing but what is to be said, and channels that take no more than they can hand on."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import asyncssh
from asyncssh.channel import SSHChannel
from asyncssh.connection import SSHConnection
from asyncssh.packet import SSHPacket

_IGNORE = 2
"""SSH_MSG_IGNORE of RFC 4253."""
_KEXINIT = 20
"""SSH_MSG_KEXINIT of RFC 4253."""
_BEFORE_NAMES = 17
"""Bytes of its kind and cookie."""
_FOR_OFFER = 0.5
"""Seconds for a client to make the first offer, if it waits for ours (auditors do)."""
_WINDOW_ADJUST = 93
"""SSH_MSG_CHANNEL_WINDOW_ADJUST of RFC 4254."""

_MOST_BYTES, _MOST_PACKETS = 256 * 1024, 256
"""Of a client that is not in; the most that one offers, 60 keys and as many signatures, is below half of it."""
_READ, _READ_INSIDE = 4 * 1024, 64 * 1024
"""Bytes read in one turn of the loop, before and after the login.

asyncssh copies what is left of them for each packet: the work for small packets grows with the square.
"""


_MOST_UNSENT, _LITTLE_UNSENT = 512 * 1024, 128 * 1024
"""Bytes that wait for a peer which does not read them: when its channels are held up, and when they go on."""
LITTLE_WINDOW, WIDE_WINDOW = 256 * 1024, 2 * 1024 * 1024
"""Bytes that a client may send ahead of what a channel has handed on."""


class LeanConnection(SSHConnection):
    """A connection without asyncssh's empty packet before each packet, whose channels wait for a peer that reads.

    Those packets guard ciphers that are not offered here (CBC), and take a third of the work that a stream makes.
    What a channel may send says its peer, which may grant whatever it likes; so that alone is no bound.
    """

    _is_full = False

    @property
    def takes_data(self) -> bool:
        """Whether the peer reads; what is said while keys are exchanged would have to be kept, too."""
        return self._kex_complete and not self._is_full

    def pause_writing(self) -> None:
        """Keep what channels have to say with them."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Let them go on."""
        self._is_full = False
        self._go_on()

    def _send_deferred_packets(self) -> None:
        super()._send_deferred_packets()
        self._go_on()

    def _go_on(self) -> None:
        for channel in tuple(self._channels.values()):
            if self.takes_data and channel._send_buf:
                channel._flush_send_buf()

    def send_packet(self, pkttype: int, *args: bytes, **fields: Any) -> None:
        """Send it, unless it is empty."""
        if pkttype != _IGNORE:
            super().send_packet(pkttype, *args, **fields)


class LeanServerConnection(LeanConnection, asyncssh.SSHServerConnection):
    """The same for a client's connection; takes little of strangers, and offers an OpenSSH with GCM nothing else."""

    _bytes = _packets = 0
    _has_offered = False
    _offering: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes, datatype: asyncssh.DataType = None) -> None:
        """Take what came, unless it is too much before the login."""
        if self._transport is not None:
            # There is no public way to bound a read.
            self._transport.max_size = _READ_INSIDE if self._auth_complete else _READ  # type: ignore[attr-defined]
        self._bytes += len(data)
        if self._auth_complete or self._bytes <= _MOST_BYTES:
            super().data_received(data, datatype)
        else:
            self.abort()

    def _recv_pkthdr(self) -> bool:
        has_one = super()._recv_pkthdr()
        self._packets += has_one
        if self._packets > _MOST_PACKETS and not self._auth_complete:
            raise asyncssh.ProtocolError("too many packets before the login")
        return has_one

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool | Awaitable[None]:
        """Make our first offer once the client's is there."""
        if pkttype == _KEXINIT and self._offering is not None:
            if _offers_gcm(packet.get_full_payload(), self._enc_algs):
                self._enc_algs = [cipher for cipher in self._enc_algs if b"gcm" in cipher]
            self._offer()
        return super().process_packet(pkttype, pktid, packet)

    def _send_kexinit(self) -> None:
        # OpenSSH's own order has CTR, which takes half as much work again, before GCM, and it makes its offer unasked.
        if self._has_offered or b"OpenSSH" not in self._client_version:
            super()._send_kexinit()
        else:
            self._offering = asyncio.get_running_loop().call_later(_FOR_OFFER, self._offer)
        self._has_offered = True

    def _offer(self) -> None:
        if self._offering is not None:
            self._offering.cancel()
            self._offering = None
        if self._transport is not None:
            super()._send_kexinit()


def _offers_gcm(offer: bytes, known: Sequence[bytes]) -> bool:
    """Whether a client knows a cipher with GCM, for both directions."""
    packet = SSHPacket(offer)
    packet.get_bytes(_BEFORE_NAMES)
    # Of key exchanges and host keys, then those of ciphers.
    _, _, to_us, to_client = (packet.get_namelist() for _ in range(4))
    return all(any(b"gcm" in cipher and cipher in known for cipher in names) for names in (to_us, to_client))


class _LeanClientConnection(LeanConnection, asyncssh.SSHClientConnection):
    pass


class LeanClient(asyncssh.SSHClient):
    """Makes the connection that it is given lean."""

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Before anything is sent."""
        # There is no public way to another class of connection.
        conn.__class__ = _LeanClientConnection
        bound_unsent(conn)


def bound_unsent(conn: SSHConnection) -> None:
    """Let little wait for a peer that does not read."""
    # There is no public way to the transport.
    if conn._transport is not None:
        conn._transport.set_write_buffer_limits(_MOST_UNSENT, _LITTLE_UNSENT)


def widen(channel: SSHChannel[bytes]) -> None:
    """Let the sender send much ahead."""
    more = WIDE_WINDOW - channel._init_recv_window
    channel._init_recv_window += more
    channel._recv_window += more
    channel.send_packet(_WINDOW_ADJUST, more.to_bytes(4, "big"))


def _deliver_data(channel: SSHChannel[bytes], data: bytes, datatype: asyncssh.DataType) -> None:
    """Hand data to the session, and let the sender send as much more as has been handed on since it was last told.

    asyncssh's own would let it send for what still waits here as well, and a slow reader's stream would pile up.
    """
    if channel._encoding is not None:
        # None of ours: text may wait in a decoder.
        _deliver_text(channel, data, datatype)
        return
    delivered = getattr(channel, "_delivered", 0) + len(data)
    if delivered > channel._init_recv_window / 2:
        channel.send_packet(_WINDOW_ADJUST, delivered.to_bytes(4, "big"))
        channel._recv_window += delivered
        delivered = 0
    channel._delivered = delivered  # type: ignore[attr-defined]
    if channel._session is not None:
        channel._session.data_received(data, datatype)


def _flush_send_buf(channel: SSHChannel[bytes]) -> None:
    """Send what the peer has room for; what it does not read stays with the channel, which pauses its session."""
    if channel._send_buf and not getattr(channel._conn, "takes_data", True):
        channel._pause_resume_writing()
    else:
        _flush_at_once(channel)


_flush_at_once = SSHChannel._flush_send_buf
_deliver_text = SSHChannel._deliver_data
# All kinds of channels, those that asyncssh makes by itself too.
SSHChannel._deliver_data = _deliver_data  # type: ignore[assignment,method-assign]
SSHChannel._flush_send_buf = _flush_send_buf  # type: ignore[assignment,method-assign]
