"""As many requests as a proxy takes: by wrk where it is installed, else by a small generator of our own."""

import asyncio
import random
import re
import shutil
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

CONNECTIONS = 16
_TOTAL = re.compile(r"(\d+) requests in ([\d.]+)(ms|s|m)")
_REFUSED = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Load:
    """What came of it."""

    requests: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def generator() -> str:
    """Which generator this machine has."""
    return "wrk" if shutil.which("wrk") else "asyncio"


async def put_load(
    url: str, paths: Sequence[str], *, seconds: float, folder: Path, headers: Mapping[str, str] | None = None
) -> Load:
    """Ask for the paths at random over kept connections; RuntimeError if any answer is not a 200."""
    if wrk := shutil.which("wrk"):
        return await _by_wrk(wrk, url, paths, seconds, folder, headers or {})
    return await _by_asyncio(url, paths, seconds, headers or {})


async def _by_wrk(
    wrk: str, url: str, paths: Sequence[str], seconds: float, folder: Path, headers: Mapping[str, str]
) -> Load:
    script = folder / "paths.lua"
    sent = ",".join(f'["{name}"] = "{value}"' for name, value in headers.items())
    listed = ",".join(f'wrk.format("GET", "{path}", {{{sent}}})' for path in paths)
    # The requests are made once, or the generator would be what is measured.
    script.write_text(
        f"local all\nfunction init() all = {{{listed}}} end\nfunction request() return all[math.random(#all)] end\n"
    )
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "-s", str(script), url]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(seconds + 30):
        out, _ = await process.communicate()
    text = out.decode()
    total = _TOTAL.search(text)
    if process.returncode != 0 or total is None or _REFUSED.search(text):
        raise RuntimeError(f"wrk {url}:\n{text}")
    return Load(int(total[1]), float(total[2]) * _SECONDS[total[3]])


class _Asker(asyncio.Protocol):
    """One connection: asks again as soon as it has been answered."""

    def __init__(self, requests: Sequence[bytes], counts: dict[str, int]) -> None:
        self._requests, self._counts, self._held = requests, counts, b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(type(transport).__name__)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found:
            return
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if length is not None and len(body) < int(length[1]):
            return
        self._held = b""
        self._counts["good" if b" 200 " in head[:16] and length else "bad"] += 1
        self._ask()

    def _ask(self) -> None:
        if self._transport is not None:
            self._transport.write(random.choice(self._requests))

    def stop(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._counts["bad"] += 1


async def _by_asyncio(url: str, paths: Sequence[str], seconds: float, headers: Mapping[str, str]) -> Load:
    loop, parts, counts = asyncio.get_running_loop(), urlsplit(url), {"good": 0, "bad": 0}
    fields = "".join(f"{name}: {value}\r\n" for name, value in {"Host": parts.netloc, **headers}.items())
    requests = [f"GET {path} HTTP/1.1\r\n{fields}\r\n".encode() for path in paths]
    context = ssl._create_unverified_context() if parts.scheme == "https" else None  # noqa: S323  (a server of ours)
    started = loop.time()
    pairs = [
        await loop.create_connection(
            lambda: _Asker(requests, counts), parts.hostname or "", parts.port or 80, ssl=context
        )
        for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(seconds)
    load = Load(counts["good"], loop.time() - started)
    for _, asker in pairs:
        asker.stop()
    if counts["bad"]:
        raise RuntimeError(f"{url}: {counts['bad']} answers were not a 200")
    return load
