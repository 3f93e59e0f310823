"""What the measures of SSH are taken with."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.bench import Bench, NotAvailableError
from tests.bench.report import Report
from tests.bench.ssh.client import SshClient
from tests.bench.ssh.flood import flood
from tests.bench.ssh.hosts import JUMP, jump_way


async def test_a_jump_host_is_gone_through_and_what_fails_is_not_measured(tmp_path: Path) -> None:
    bench = Bench(tmp_path, runs=1, quick=True, report=Report({}), artefacts=tmp_path, chp=None)
    source = tmp_path / "source"
    source.write_bytes(bytes(100_000))
    try:
        client = SshClient(tmp_path / "client")
        async with jump_way(bench, client) as way:
            assert 0 < await client.seconds(JUMP, "true") < 60
            count = f"test $(wc -c) = 100000 && test $(echo $SSH_CONNECTION | cut -d' ' -f4) = {way.target.port}"
            assert 0 < await client.seconds_of_transfer(JUMP, count, source) < 60
            with pytest.raises(RuntimeError, match="ended with 3"):
                await client.seconds(JUMP, "exit 3")
            await way.hop.end()
            with pytest.raises(RuntimeError, match="ended with 255"):
                await client.seconds(JUMP, "true")
    except NotAvailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("says", "outcome"), [(b"SSH-2.0-x\r\n", "greeted"), (b"", "sent away")])
async def test_a_flood_tells_what_became_of_its_attempts(says: bytes, outcome: str) -> None:
    def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        writer.close()

    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None] = serve
    async with await asyncio.start_server(handler, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        counts = await flood(port, connections=3, seconds=0.3, knocks=True, spread=True)
    assert counts.pop("seconds") >= 0.3
    assert counts.keys() == {outcome}
