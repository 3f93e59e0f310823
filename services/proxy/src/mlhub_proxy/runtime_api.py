"""HAProxy's runtime API: one command for each connection to its socket."""

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlhub_proxy.routes import Change
from mlhub_shared.errors import Permanent, Temporary

SOCKET = "haproxy.sock"
_PATIENCE = 3.0
"""Seconds for one command; most take less than a millisecond."""
_CHUNK = 12_000
"""Bytes of one command; HAProxy's buffer holds 16 KiB."""
_ANSWER = 64 * 1024 * 1024

_WORD = re.compile(r"[!#-\[\]-~]+")
"""Printable, no blank, no quote, no backslash: nothing that could end a word, a line or a command but `;`."""
_MOVED = re.compile(r"no need to change|(IP|port) changed from", re.IGNORECASE)
_COUNTER = re.compile(r"key=(\S+) .*conn_cur=(\d+) .*bytes_in_cnt=(\d+) .*bytes_out_cnt=(\d+)")


class HAProxyUnavailable(Temporary):
    """HAProxy did not take a command."""


@dataclass(frozen=True)
class Info:
    """Who answers on the socket."""

    pid: int
    fingerprint: str
    """Of the configuration it runs."""


@dataclass(frozen=True)
class Counter:
    """What went through HAProxy for one workspace since it was started."""

    bytes_in: int
    bytes_out: int
    open_connections: int


class RuntimeApi:
    """Commands to the HAProxy of one folder."""

    def __init__(self, folder: Path) -> None:
        # By descriptor: the address of a socket must be short, a folder's name need not be.
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._folder)

    def path(self, name: str) -> str:
        """A short name of a socket in the folder."""
        return f"/proc/self/fd/{self._folder}/{name}"

    async def info(self) -> Info:
        """Who answers."""
        lines = dict(line.partition(": ")[::2] for line in (await self._ask("show info")).splitlines())
        try:
            return Info(int(lines["Pid"]), lines.get("description", ""))
        except (KeyError, ValueError) as error:
            raise HAProxyUnavailable("HAProxy does not say who it is") from error

    async def change(self, change: Change) -> None:
        """Add, replace or remove one entry."""
        table, key = word(change.table), word(change.key)
        if change.value is None:
            await self._do(f"del map {table} {key}", "Key not found.")
        elif change.existed:
            await self._do(f"set map {table} {key} {word(change.value)}")
        else:
            await self._do(f"add map {table} {key} {word(change.value)}")

    async def swap(self, table: str, entries: Mapping[str, str]) -> None:
        """Replace a whole table in one moment."""
        answer = await self._ask(f"prepare map {word(table)}")
        found = re.search(r"version created: (\d+)", answer)
        if found is None:
            raise HAProxyUnavailable(f"HAProxy refused to prepare {table}: {answer.strip()}")
        for chunk in _chunks(entries):
            await self._do(f"add map @{found[1]} {table} <<\n{chunk}")
        await self._do(f"commit map @{found[1]} {table}")

    async def set_server(self, server: str, address: str | None, port: int) -> None:
        """Give a server, `backend/name`, work at this address; None: no more."""
        if address is not None:
            command = f"set server {word(server)} addr {word(address)} port {port}"
            answer = (await self._ask(command)).strip()
            if not _MOVED.match(answer):
                raise HAProxyUnavailable(f"HAProxy refused {command[:60]!r}: {answer[:200]}")
        await self._do(f"set server {word(server)} state {'ready' if address else 'maint'}")

    async def set_certificate(self, name: str, pem: str) -> None:
        """Show another certificate to who connects from now on; `pem` has no empty line.

        Permanent if it is refused; nothing has changed then.
        """
        answers = [await self._ask(f"set ssl cert {word(name)} <<\n{pem.strip()}\n")]
        if "Transaction" in answers[0]:
            answers.append(await self._ask(f"commit ssl cert {word(name)}"))
        if "Success!" not in answers[-1]:
            await self._ask(f"abort ssl cert {word(name)}")
            raise Permanent(f"HAProxy refused the certificate: {' '.join(answers[-1].split())[:200]}")

    async def counters(self) -> dict[str, Counter]:
        """Bytes and open connections by workspace name."""
        found = _COUNTER.finditer(await self._ask("show table activity"))
        return {match[1]: Counter(int(match[3]), int(match[4]), int(match[2])) for match in found}

    async def _do(self, command: str, *fine: str) -> None:
        answer = (await self._ask(command)).strip()
        if answer and answer not in fine:
            raise HAProxyUnavailable(f"HAProxy refused {command[:60]!r}: {answer[:200]}")

    async def _ask(self, command: str) -> str:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._converse(command)
        except (OSError, TimeoutError) as error:
            raise HAProxyUnavailable(f"HAProxy does not answer: {error or 'too slow'}") from error

    async def _converse(self, command: str) -> str:
        reader, writer = await asyncio.open_unix_connection(self.path(SOCKET))
        try:
            writer.write(f"{command}\n".encode())
            await writer.drain()
            answer = bytearray()
            while data := await reader.read(65536):
                answer += data
                if len(answer) > _ANSWER:
                    raise HAProxyUnavailable("HAProxy's answer does not end")
            return answer.decode(errors="replace")
        finally:
            writer.close()


def word(text: str) -> str:
    """One word of a command; Permanent if it can't be one, so that no record can smuggle in a command."""
    if not _WORD.fullmatch(text):
        raise Permanent(f"this can't be sent to HAProxy: {text[:100]!r}")
    return text.replace(";", "\\;")


def line(key: str, value: str) -> str:
    """One line of a table, in its file and in a swap; Permanent if it can't be one."""
    word(key)
    word(value)
    return f"{key} {value}\n"


def _chunks(entries: Mapping[str, str]) -> Iterator[str]:
    chunk = ""
    for key, value in entries.items():
        text = line(key, value)
        if len(chunk) + len(text) > _CHUNK:
            yield chunk
            chunk = ""
        chunk += text
    if chunk:
        yield chunk
