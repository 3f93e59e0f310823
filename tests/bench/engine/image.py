"""An image whose server is there the moment its container is: hub, spawner and engine are what is left to measure."""

import asyncio
import io
import shutil
import tarfile
from importlib.metadata import version
from pathlib import Path

from aiodocker import Docker

from tests.bench.bench import NotAvailableError

PORT = 8888
"""Where its server listens."""
_SOURCE = Path(__file__).with_name("single_user.c")
_DOCKERFILE = 'FROM scratch\nCOPY server /server\nEXPOSE 8888\nCMD ["/server"]\n'
_PATIENCE = 120


async def build(docker: Docker, tag: str, *, labels: dict[str, str], folder: Path) -> None:
    """Compile the server and make an image of nothing else; NotAvailableError where there is no compiler.

    The folder must exist.
    """
    program = await _compile(folder)
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w:gz") as archive:
        _add(archive, "Dockerfile", _DOCKERFILE.encode(), mode=0o644)
        _add(archive, "server", program.read_bytes(), mode=0o755)
    context.seek(0)
    async with asyncio.timeout(_PATIENCE):
        await docker.images.build(fileobj=context, encoding="gzip", tag=tag, labels=labels, rm=True, forcerm=True)
        await docker.images.inspect(tag)


async def _compile(folder: Path) -> Path:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "tcc"))), None)
    if compiler is None:
        raise NotAvailableError("there is no C compiler on PATH; on Debian or Ubuntu: apt-get install gcc libc6-dev")
    program = folder / "single-user"
    process = await asyncio.create_subprocess_exec(
        *(compiler, "-static", "-O2", f'-DHUB_VERSION="{version("jupyterhub")}"', "-o", str(program), str(_SOURCE)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(_PATIENCE):
        out, _ = await process.communicate()
    if process.returncode != 0:
        raise NotAvailableError(f"{compiler} does not compile: {out.decode(errors='replace').strip()[-300:]}")
    return program


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    archive.addfile(info, io.BytesIO(content))
