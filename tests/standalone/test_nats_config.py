import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlhub_shared.bus import Bus, BusSettings
from mlhub_shared.errors import Permanent
from mlhub_standalone import nats_config
from mlhub_standalone.binaries import nats_server
from mlhub_standalone.credentials import NATS_USER
from mlhub_standalone.data_dir import DataDir
from tests.support.makers import record
from tests.support.ports import free_port
from tests.support.waiting import until_async

PASSWORD = 'a"pass\\word $with what needs care'


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """A server with the launcher's configuration."""
    data = DataDir(tmp_path / "a folder")
    data.create()
    port = free_port()
    nats_config.write(data, port, PASSWORD)
    process = await asyncio.create_subprocess_exec(
        nats_server(None).path, "-c", str(data.nats_config),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, env=dict(os.environ),
    )  # fmt: skip
    await until_async(lambda: answers(port))
    yield port
    process.terminate()
    await process.wait()


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def settings(port: int, password: str | None) -> BusSettings:
    return BusSettings(url=f"nats://127.0.0.1:{port}", hub="test", service="tests", user=NATS_USER, password=password)


async def test_the_password_opens_it_and_records_are_kept(port: int) -> None:
    bus = await Bus.open(settings(port, PASSWORD))
    await bus.workspaces.put("x", record())
    found = await bus.workspaces.get("x")
    await bus.close()
    assert found is not None
    assert found.value == record()


@pytest.mark.parametrize("password", [None, "", "wrong"])
async def test_nothing_else_does(port: int, password: str | None) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    greeting = json.loads((await reader.readline()).removeprefix(b"INFO "))
    assert greeting["auth_required"] is True
    login = {"user": NATS_USER, "pass": password} if password is not None else {}
    writer.write(b"CONNECT " + json.dumps({"verbose": True, **login}).encode() + b"\r\nPING\r\n")
    assert b"Authorization Violation" in await asyncio.wait_for(reader.read(), 20)
    writer.close()


async def test_a_message_beyond_the_bound_is_refused(port: int) -> None:
    bus = await Bus.open(settings(port, PASSWORD))
    with pytest.raises(Permanent, match="too large"):
        await bus.workspaces.put("x", record(message="x" * nats_config.MAX_PAYLOAD))
    await bus.close()
