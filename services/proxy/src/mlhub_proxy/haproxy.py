"""One HAProxy, kept running: found again after a crash of the agent, started again after one of its own."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from mlhub_proxy import metrics
from mlhub_proxy.config import CONFIG, Config
from mlhub_proxy.maps import write_whole
from mlhub_proxy.process import Process
from mlhub_proxy.runtime_api import SOCKET, HAProxyUnavailable, Info, RuntimeApi
from mlhub_shared.bus.backoff import Backoff
from mlhub_shared.errors import Temporary

log = structlog.get_logger(__name__)

LOG = "haproxy.log"
PID_FILE = "haproxy.pid"
"""In the data directory, for whoever has to clean up when the agent can't."""

_START = 10.0
"""Seconds until a started HAProxy must answer."""
_STEADY = 5.0
"""Seconds after which a start counts as a success."""
_ADOPT_TRIES = 3


class HAProxy:
    """Runs HAProxy in its own folder.

    It is nobody's master and worker but one process: `before_start` writes the tables it reads, `after_start` brings
    what changed since, and a new configuration takes the listeners over while old connections run out.
    """

    def __init__(self, program: Path, config: Config, api: RuntimeApi, *, folder: Path, pid_file: Path) -> None:
        self._program, self._config, self._api = program, config, api
        self._folder, self._pid_file = folder, pid_file
        self._process: Process | None = None
        self._problem: str | None = "HAProxy has not been started yet"
        self.was_found: bool | None = None
        """Whether one ran already when this agent began; None: it has not looked yet."""

    @property
    def problem(self) -> str | None:
        """Why HAProxy does not serve; None: it does."""
        return self._problem

    async def run(
        self, *, before_start: Callable[[], Awaitable[None]], after_start: Callable[[], Awaitable[None]]
    ) -> None:
        """Keep it running until cancelled; it runs on then."""
        backoff = Backoff(first=0.05, most=5)
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                self._process = await self._adopt_or_start(before_start)
            except Exception as error:
                self._problem = str(error) or repr(error)
                log.error("haproxy.not_started", error=self._problem, exc_info=not isinstance(error, Temporary))
                await backoff.sleep()
                continue
            self._problem = None
            resync = asyncio.ensure_future(after_start())
            try:
                await self._process.ended.wait()
            finally:
                resync.cancel()
            self._problem = "HAProxy has ended"
            log.error("haproxy.ended", pid=self._process.pid, log=self._log_tail())
            if loop.time() - started > _STEADY:
                backoff.reset()
            await backoff.sleep()

    async def stop(self, grace: float) -> None:
        """End it, requests in flight after `grace` seconds too."""
        self.release()
        await self._end_all(grace)
        self._pid_file.unlink(missing_ok=True)

    async def _end_all(self, grace: float) -> None:
        """All there are in our folder: also one that still serves what a former configuration let in."""
        processes = Process.find_all(folder=self._folder, argument=CONFIG)
        await asyncio.gather(*(process.end(grace) for process in processes))

    def release(self) -> None:
        """Let it run on without us."""
        process, self._process = self._process, None
        if process is not None:
            process.release()

    async def _adopt_or_start(self, before_start: Callable[[], Awaitable[None]]) -> Process:
        found = await self._find()
        if self.was_found is None:
            self.was_found = found is not None
        if found is not None:
            process, fingerprint = found
            if fingerprint == self._config.fingerprint:
                log.info("haproxy.adopted", pid=process.pid)
                metrics.STARTS.labels(how="adopted").inc()
                await self._note(process)
                return process
            log.info("haproxy.replacing", pid=process.pid)
        else:
            await self._end_all(0)  # one that does not answer would hold the ports
        await before_start()
        for name, text in self._config.files.items():
            await asyncio.to_thread(write_whole, self._folder / name, text)
        old = found[0] if found else None
        try:
            started = await self._start(old)
        finally:
            if old is not None:
                old.release()
        metrics.STARTS.labels(how="replaced" if old else "started").inc()
        return started

    async def _find(self) -> tuple[Process, str] | None:
        """Who answers on our socket, which nobody else can bind: the folder is ours alone."""
        for _ in range(_ADOPT_TRIES):
            info = await self._info()
            process = Process.find(info.pid) if info else None
            if info is None or process is None:
                return None
            # Asked again: had it ended before we held it, the number could be anybody's by now.
            if await self._info() == info:
                return process, info.fingerprint
            process.release()
        return None

    async def _info(self) -> Info | None:
        try:
            return await self._api.info()
        except HAProxyUnavailable:
            return None

    async def _start(self, old: Process | None) -> Process:
        # Not `-sf`: it would pause the old one before it is sure that the new one can bind all it must.
        take_over = ["-x", SOCKET] if old else []
        process = Process.start(
            [self._program, "-db", "-f", CONFIG, *take_over], folder=self._folder, log=self._folder / LOG
        )
        await self._note(process)
        try:
            async with asyncio.timeout(_START):
                if await self._answers(process, times=1):
                    if old is not None:
                        # Until it has let go of the socket that both have, it may answer in the new one's place.
                        old.send(signal.SIGUSR1)
                        await self._answers(process, times=5)
                    log.info("haproxy.started", pid=process.pid, instead_of=old.pid if old else None)
                    return process
        except TimeoutError:
            await process.end(0)
        if old is not None:
            await self._note(old)
        raise Temporary(f"HAProxy did not start: {self._log_tail()}")

    async def _answers(self, process: Process, *, times: int) -> bool:
        """Wait until this process, and no other, answers so many times in a row; False if it ended."""
        row = 0
        while row < times and not process.ended.is_set():
            info = await self._info()
            row = row + 1 if info is not None and info.pid == process.pid else 0
            if row < times:
                await process.wait(0.01)
        return not process.ended.is_set()

    async def _note(self, process: Process) -> None:
        await asyncio.to_thread(write_whole, self._pid_file, f"{process.pid}\n")

    def _log_tail(self) -> str:
        try:
            lines = (self._folder / LOG).read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        alarming = [line for line in lines if line.startswith("[ALERT]")] or lines
        return "; ".join(alarming[-5:]) or "it said nothing"
