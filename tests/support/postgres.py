"""A real PostgreSQL of the test's own, on a free port."""

import asyncio
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg

from tests.support.ports import free_port
from tests.support.waiting import until_async

USER, PASSWORD, DATABASE = "mlhub", "p@ss/w%rd:1", "hub"


def postgres_folder() -> Path | None:
    """Where the newest server's programs are; None where there is none."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return installed[-1].parent if installed else Path(on_path).resolve().parent if on_path else None


class Postgres:
    """Starts and kills one server on one port and folder, by somebody who is not root: it serves nobody else."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder, self._port = programs, folder, free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._owner: str | None = None

    @property
    def url(self) -> str:
        """As an operator gives it."""
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self._port}/{DATABASE}"

    async def make(self) -> None:
        """An empty database, owned by a user with no other right."""
        if os.getuid() == 0:
            self._owner = next(name for name in ("postgres", "nobody") if _is_user(name))
            os.chown(self._folder, pwd.getpwnam(self._owner).pw_uid, -1)
        made = await self._run("initdb", "-D", str(self._data), "--auth=trust", "--username=root", "--no-sync")
        output, _ = await made.communicate()
        assert made.returncode == 0, output.decode()
        await self.start()
        async with await self._connect("postgres", user="root") as connection:
            await connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'".encode())
            await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {USER}".encode())
        await self.kill()
        (self._data / "pg_hba.conf").write_text(f"host {DATABASE} {USER} 127.0.0.1/32 scram-sha-256\n")
        await self.start()

    async def start(self) -> None:
        options = ("fsync=off", f"port={self._port}", "listen_addresses=127.0.0.1", "unix_socket_directories=")
        arguments = [word for option in options for word in ("-c", option)]
        self._process = await self._run("postgres", "-D", str(self._data), *arguments)
        await until_async(self._answers)

    async def kill(self) -> None:
        """At once: every connection is cut."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGQUIT)
            await asyncio.wait_for(process.communicate(), 20)

    async def rows(self, query: str) -> list[tuple[object, ...]]:
        """What the hub's own user reads there; none for a command."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            cursor = await connection.execute(query.encode())
            return await cursor.fetchall() if cursor.description else []

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    async def _answers(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            output, _ = await self._process.communicate()
            raise RuntimeError(output.decode())
        # It takes connections before it takes anybody in, when it has to recover first.
        asked = await self._run("pg_isready", "--host=127.0.0.1", f"--port={self._port}")
        await asked.communicate()
        return asked.returncode == 0

    async def _connect(self, database: str, *, user: str) -> "psycopg.AsyncConnection[tuple[object, ...]]":
        address = f"host=127.0.0.1 port={self._port} dbname={database} user={user} connect_timeout=20"
        return await psycopg.AsyncConnection.connect(address, autocommit=True)

    async def _run(self, program: str, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            self._programs / program,
            *arguments,
            user=self._owner,
            cwd=self._folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )


@asynccontextmanager
async def postgres(programs: Path) -> AsyncIterator[Postgres]:
    """One with an empty database."""
    # Not in pytest's folder, which only the one who runs the tests may enter.
    folder = Path(tempfile.mkdtemp(prefix="mlhub-postgres-"))
    server = Postgres(programs, folder)
    try:
        await server.make()
        yield server
    finally:
        await server.kill()
        shutil.rmtree(folder)


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
