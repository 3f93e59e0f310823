"""The script that gives a program of a pod its arguments, in this machine's shells, on pipes and on a terminal."""

import asyncio
import os
import pty
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from mlhub_spawner_worker.backends.inside import script
from mlhub_spawner_worker.backends.kubernetes import exec_stage
from mlhub_spawner_worker.entry import EntryError, Order, What

SHELLS = [name for name in ("dash", "bash", "busybox", "ksh", "zsh") if shutil.which(name)]
LONG = "".join(
    f"line {number} of a 'long' \\text\\ with $much \"in\" it\t\x01\x03\x04\x15\x1a\x7f\r\n" for number in range(400)
)
TELL = "import os, sys; print(repr((sys.argv[1:], os.environ.get('LC_OWN'))), flush=True); "


@asynccontextmanager
async def staged(
    shell: str, text: bytes, *, has_terminal: bool, path: str = os.environ["PATH"]
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.subprocess.Process]]:
    """What the script of a shell has become, and its streams."""
    loop = asyncio.get_running_loop()
    executable = [str(shutil.which(shell)), *(["sh"] if shell == "busybox" else [])]
    ours, theirs = pty.openpty() if has_terminal else (-1, -1)
    process = await asyncio.create_subprocess_exec(
        *executable,
        *exec_stage.script(text)[1:],
        stdin=theirs if has_terminal else asyncio.subprocess.PIPE,
        stdout=theirs if has_terminal else asyncio.subprocess.PIPE,
        env={"PATH": path, "mlhub": "of somebody's environment"},
        start_new_session=True,
    )
    reader = process.stdout or asyncio.StreamReader()
    writer = process.stdin
    if has_terminal:
        os.close(theirs)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(ours), "rb", 0))
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(ours, "wb", 0))
        writer = asyncio.StreamWriter(transport, protocol, None, loop)
    assert writer is not None
    try:
        async with asyncio.timeout(20):
            yield reader, writer, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        writer.close()


@pytest.mark.parametrize("has_terminal", [False, True], ids=["pipes", "terminal"])
@pytest.mark.parametrize("shell", SHELLS)
async def test_a_program_has_its_arguments_its_environment_and_its_input_as_they_were(
    shell: str, has_terminal: bool
) -> None:
    arguments = ["", "two words\n\n", "-n", LONG]
    command = [sys.executable, "-c", TELL + "print(sys.stdin.readline(), end='')", *arguments]
    environment = {"LC_OWN": "it's $mine\n", "LC_NO;touch x": "1"}
    text = exec_stage.text(command, environment)
    async with staged(shell, text, has_terminal=has_terminal) as (reader, writer, process):
        assert await reader.readexactly(1) == exec_stage.READY
        writer.write(text)
        assert eval(await reader.readuntil(b"\n")) == (arguments, "it's $mine\n")  # noqa: S307
        writer.write(b"input\n")
        said = await reader.readuntil(b"\n")
        # Only now does it echo.
        assert said == (b"input\r\n" if has_terminal else b"input\n")
        assert await process.wait() == 0


async def test_input_of_any_kind_reaches_the_program_from_its_first_byte() -> None:
    text, data = exec_stage.text(["/bin/cat"], {}), bytes(range(256)) * 1000
    async with staged("sh", text, has_terminal=False) as (reader, writer, _):
        await reader.readexactly(1)
        writer.write(text + data)
        writer.write_eof()
        assert await reader.read() == data


async def test_an_image_without_stty_says_what_a_terminal_needs(tmp_path: Path) -> None:
    text = exec_stage.text(["/bin/true"], {})
    async with staged("sh", text, has_terminal=True, path=str(tmp_path)) as (reader, _, process):
        said = await reader.readuntil(b"none\r\n")
        assert b"needs stty in the workspace's image" in said
        assert await process.wait() == 127


def test_what_no_program_can_be_given_is_refused() -> None:
    with pytest.raises(EntryError, match="zero byte"):
        exec_stage.text(["/bin/sh", "-c", "echo \0"], {})


@pytest.mark.parametrize("what", What)
def test_the_url_is_short_whatever_is_run_and_says_nothing_of_it(what: What) -> None:
    text = exec_stage.text(script.program(Order(what, "echo secret" * 1000), "/secret"), {"LC_ALL": "secret"})
    assert b"secret" in text
    url = urlencode({"command": exec_stage.script(text)}, doseq=True)
    assert "secret" not in url
    assert len(url) < 1024
