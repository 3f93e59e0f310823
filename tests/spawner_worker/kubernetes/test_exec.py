"""What is special about entering a pod; what holds for every workspace is in `test_attach.py`."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlhub_spawner_worker.backends.kubernetes.exec import KubernetesPlace, PodEntry
from mlhub_spawner_worker.backends.kubernetes.stream import StreamClient
from tests.support.attach_places import NAME, Place, entered, pod_place, serve, through
from tests.support.middle_box import MiddleBox
from tests.support.pods import Pods
from tests.support.waiting import until_async

MEGABYTE = 1 << 20


@pytest.fixture
async def place(tmp_path: Path, pods: Pods) -> AsyncIterator[Place]:
    async with pod_place(tmp_path, pods) as place:
        yield place


async def test_every_key_reaches_a_terminals_program_at_once(place: Place) -> None:
    async with (
        place.connect() as connection,
        connection.create_process("stty raw -echo; echo on; od -An -v -w1 -tx1", term_type="xterm") as process,
    ):
        assert (await process.stdout.readline()).strip() == "on"
        for key in (*range(32), 127):
            process.stdin.write(chr(key))
            assert int(await asyncio.wait_for(process.stdout.readline(), 10), 16) == key


async def test_a_long_command_runs_in_a_terminal_and_nothing_of_it_is_echoed(place: Place) -> None:
    line = f"x='{'y' * 30_000}\n{'z' * 30_000}'; echo ${{#x}}; stty -a | grep -o -- '-\\?echo '"
    async with place.connect() as connection:
        ran = await connection.run(line, term_type="xterm")
        assert str(ran.stdout).split() == ["60001", "echo"]


async def test_a_status_tells_a_signal_as_shells_do(place: Place) -> None:
    assert (await place.gateway.run(NAME, "kill -KILL $$")).status == 128 + 9


async def test_nothing_of_a_program_is_in_the_urls_that_the_api_logs(
    pods: Pods, box: MiddleBox, tmp_path: Path
) -> None:
    if pods.fake is None:
        pytest.skip("only without encryption can it be seen")
    async with through(box, pods, tmp_path) as place:
        options = ("-o", "SetEnv=LC_OWN=canary")
        assert (await place.gateway.run(NAME, 'echo "canary $LC_OWN"', options=options)).stdout == b"canary canary\n"
        async with place.connect() as connection, connection.start_sftp_client() as sftp:
            await sftp.listdir(".")
    asked = [head.partition(b"\r\n")[0] for head in box.heads]
    assert sum(b"/exec?" in line for line in asked) >= 2
    assert not any(b"canary" in line or len(line) > 1500 for line in asked)


@pytest.mark.parametrize("options", [(), ("-tt",)], ids=["pipes", "terminal"])
async def test_what_runs_is_hung_up_when_the_api_drops_the_streams(
    pods: Pods, box: MiddleBox, tmp_path: Path, options: tuple[str, ...]
) -> None:
    async with through(box, pods, tmp_path) as place:
        client, pid = await sleeping(place, *options)
        box.cut()
        await ends_as_lost(client)
        await until_async(lambda: has_gone(place, pid))


async def test_what_runs_is_hung_up_when_the_api_that_was_away_is_back(
    pods: Pods, box: MiddleBox, tmp_path: Path
) -> None:
    async with through(box, pods, tmp_path) as place:
        client, pid = await sleeping(place)
        box.go_away()
        await ends_as_lost(client)
        ran = await place.gateway.run(NAME, "true")
        assert (ran.status, "Kubernetes API does not answer" in ran.stderr) == (126, True)
        assert await place.is_alive(pid)
        box.is_away = False
        await until_async(lambda: has_gone(place, pid))


async def test_a_session_ends_when_the_api_is_silent(pods: Pods, box: MiddleBox, tmp_path: Path) -> None:
    async with through(box, pods, tmp_path, silence=1) as place:
        client, pid = await sleeping(place)
        await asyncio.sleep(2.5)
        assert client.returncode is None, "it says nothing itself, but answers"
        box.is_silent = True
        await asyncio.sleep(0.5)
        await ends_as_lost(client)
        box.is_silent = False
        box.cut()
        await until_async(lambda: has_gone(place, pid))


async def test_a_program_that_reads_nothing_for_long_is_not_taken_for_silence(
    pods: Pods, box: MiddleBox, tmp_path: Path
) -> None:
    async with through(box, pods, tmp_path, silence=0.6) as place:
        data = random.Random(6).randbytes(8 * MEGABYTE)
        ran = await place.gateway.run(NAME, "sleep 3; wc -c", stdin=data)
        assert (ran.status, ran.stdout.strip()) == (0, str(len(data)).encode())


async def test_a_session_ends_with_its_pod(tmp_path: Path, pods: Pods) -> None:
    async with pods.running() as pod, entered(pod) as entry, serve(tmp_path, entry, "", pod.inside) as place:
        client, _ = await sleeping(place)
        await pod.delete()
        await asyncio.wait_for(client.communicate(), 20)
        assert client.returncode in (128 + 9, 128 + 15, 255)
        ran = await place.gateway.run(NAME, "true")
        assert (ran.status, ran.stderr.strip()) == (126, "This workspace is not running: its pod is gone")


async def test_what_the_api_refuses_is_said(tmp_path: Path, pods: Pods) -> None:
    client = StreamClient(pods.configuration)
    try:
        async with pods.running() as pod:
            entry = PodEntry(KubernetesPlace(client, pods.namespace, pod.name, "other"), home=None)
            async with serve(tmp_path, entry, "") as place:
                ran = await place.gateway.run(NAME, "true")
                assert (ran.status, "has no such container" in ran.stderr) == (126, True)
    finally:
        await client.aclose()


async def test_a_role_without_a_verb_is_named(tmp_path: Path, pods: Pods) -> None:
    if pods.fake is None:
        pytest.skip("the cluster's roles are not the test's")
    async with pods.running() as pod, entered(pod) as entry, serve(tmp_path, entry, "") as place:
        for verb in ("get", "create"):
            pods.fake.faults.revoke(verb, "pods/exec")
            ran = await place.gateway.run(NAME, "true")
            assert ran.status == 126
            assert "may not create and get pods/exec" in ran.stderr
            assert "can't enter a workspace without" in ran.stderr
            pods.fake.faults.grant(verb, "pods/exec")
        assert (await place.gateway.run(NAME, "true")).status == 0


async def test_what_runs_is_hung_up_when_the_endpoint_ends(tmp_path: Path, pods: Pods) -> None:
    async with pods.running() as pod:
        pids = []
        async with entered(pod) as entry, serve(tmp_path, entry, "", pod.inside) as place:
            for options in ((), ("-tt",)):
                _, pid = await sleeping(place, *options)
                pids.append(pid)
        assert not any([await place.is_alive(pid) for pid in pids])


async def sleeping(place: Place, *options: str) -> tuple[asyncio.subprocess.Process, int]:
    """A session whose program does nothing, and the program's number."""
    client = await place.gateway.start(NAME, "echo $$; exec sleep 60", options=options)
    assert client.stdout is not None
    return client, int(await client.stdout.readline())


async def ends_as_lost(client: asyncio.subprocess.Process) -> None:
    _, said = await asyncio.wait_for(client.communicate(), 20)
    assert (client.returncode, b"connection to the workspace is lost" in said) == (255, True), said


async def has_gone(place: Place, pid: int) -> bool:
    return not await place.is_alive(pid)
