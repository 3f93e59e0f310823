"""The process backend with real processes: what it starts, finds again, ends, and keeps from them."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord, WorkspaceSecrets, WorkspaceSpec
from mlhub_shared.errors import Permanent
from mlhub_spawner_worker.backends.base import BackendError, Job
from mlhub_spawner_worker.backends.process import ProcessBackend, ProcessSettings, log
from mlhub_spawner_worker.backends.process.identity import boot_id
from mlhub_spawner_worker.backends.process.limits import Cgroups, Guard, find_limiter
from tests.support.makers import NEWEST, record, workspace
from tests.support.waiting import until, until_async
from tests.support.workers import FAKE_SERVER, direct

ALICE = workspace().name
GRACE = timedelta(seconds=1)
CANARY = "canary-of-the-service"
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "LANG": "C.UTF-8",
    "MLHUB_NATS_PASSWORD": CANARY,
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "HTTPS_PROXY": "http://proxy:3128",
}


def backend_in(folder: Path, command: str = FAKE_SERVER) -> ProcessBackend:
    settings = ProcessSettings(
        data_dir=folder, command=command.split(), environment=ENVIRONMENT, passed=("HTTPS_PROXY",)
    )
    return ProcessBackend(settings)


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[ProcessBackend]:
    async with opened(backend_in(tmp_path)) as backend:
        yield backend


@contextlib.asynccontextmanager
async def opened(backend: ProcessBackend) -> AsyncIterator[ProcessBackend]:
    """A backend, and none of its processes left afterwards."""
    await backend.open()
    try:
        yield backend
    finally:
        for found in await backend.inventory():
            await backend.stop(found.record.name, grace=timedelta(0), up_to=NEWEST)
        await backend.aclose()


def job(user: str = "alice", *, generation: int = 1, env: dict[str, str] | None = None, **spec: float) -> Job:
    wanted = WorkspaceSpec.model_validate({"env": env or {}, **spec})
    target = record(user, phase=Phase.PREPARING, generation=generation, spec=wanted, node="n1")
    secrets = WorkspaceSecrets(
        generation=generation, env={"JUPYTERHUB_API_TOKEN": "the-token"}, secret_env={"DB_PASSWORD": "s3cret"}
    )
    return Job(target, secrets)


async def report(_: int, __: str) -> None:
    pass


async def started(backend: ProcessBackend, wanted: Job) -> WorkspaceRecord:
    """Start it and wait until it answers."""
    await backend.prepare(wanted, report)
    running = await backend.start(wanted)
    up = wanted.record.model_copy(update={"endpoint": running.endpoint, "phase": Phase.STARTING, "boot": running.boot})
    await until_async(lambda: direct(up))
    return up


def processes(name: str, folder: Path) -> set[int]:
    """Ids of every live process that carries a workspace's marker and lies in this folder."""
    marks = {f"MLHUB_WORKSPACE={name}".encode(), f"HOME={folder}/workspaces/{name}/home".encode()}
    return {pid for pid, variables in environments() if marks <= variables}


def environments() -> Iterator[tuple[int, set[bytes]]]:
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit():
                yield int(entry), set(Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"))


def environment_of(pid: int) -> dict[str, str]:
    items = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(item.split("=", 1) for item in items if item)


async def test_nothing_of_the_service_reaches_a_workspace(backend: ProcessBackend, tmp_path: Path) -> None:
    up = await started(backend, job(env={"MY": "own", "MLHUB_WORKSPACE": "forged"}))
    (pid,) = processes(ALICE, tmp_path)
    environment = environment_of(pid)
    assert CANARY not in str(environment)
    assert environment["HTTPS_PROXY"] == "http://proxy:3128"
    assert up.endpoint is not None
    assert (
        environment.items()
        >= {
            "MY": "own",
            "DB_PASSWORD": "s3cret",
            "JUPYTERHUB_API_TOKEN": "the-token",
            "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{up.endpoint.port}/user/alice/",
            "HOME": str(tmp_path / "workspaces" / ALICE / "home"),
        }.items()
    )
    assert os.readlink(f"/proc/{pid}/cwd") == environment["HOME"]
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    inherited = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert inherited - {"/dev/null", str(tmp_path / "workspaces" / ALICE / "log.txt")} <= {
        link for link in inherited if link.startswith("socket:")
    }


async def test_what_is_kept_on_disk_is_for_the_worker_alone_and_holds_no_secret(
    backend: ProcessBackend, tmp_path: Path
) -> None:
    await started(backend, job())
    state = tmp_path / "workspaces" / ALICE / "state.json"
    kept = state.read_text()
    assert "s3cret" not in kept
    assert "the-token" not in kept
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in (state, tmp_path)] == [0o600, 0o700]


async def test_a_killed_child_is_noticed_at_once_with_its_signal(backend: ProcessBackend, tmp_path: Path) -> None:
    await started(backend, job())
    waiting = asyncio.ensure_future(backend.wait(ALICE))
    (pid,) = processes(ALICE, tmp_path)
    os.kill(pid, signal.SIGKILL)
    end = await asyncio.wait_for(waiting, 10)
    assert (end.code, end.log_tail) == (-signal.SIGKILL, "the server starts\n")
    assert str(pid) not in os.listdir("/proc"), "it was reaped"


async def test_its_exit_code_and_last_words_are_kept(backend: ProcessBackend) -> None:
    wanted = job(env={"FAKE_EXIT": "7"})
    await backend.prepare(wanted, report)
    await backend.start(wanted)
    end = await asyncio.wait_for(backend.wait(ALICE), 20)
    assert end.code == 7
    assert "the server gives up" in end.log_tail
    assert await backend.wait(ALICE) == end, "also for one that asks later"


async def test_a_second_backend_adopts_and_hears_of_the_end(tmp_path: Path) -> None:
    first = backend_in(tmp_path)
    await first.open()
    up = await started(first, job())
    await first.remember(up)
    with pytest.raises(Permanent, match="another worker"):
        await backend_in(tmp_path).open()
    await first.aclose()
    async with opened(backend_in(tmp_path)) as second:
        (found,) = await second.inventory()
        assert found.record == up
        assert found.running is not None
        assert found.running.endpoint == up.endpoint
        assert await second.start(job()) == found.running, "the same generation is not started twice"
        waiting = asyncio.ensure_future(second.wait(ALICE))
        await asyncio.sleep(0)
        (pid,) = processes(ALICE, tmp_path)
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(waiting, 10)
        assert (await second.inventory())[0].running is None


async def test_another_generation_replaces_the_process(backend: ProcessBackend, tmp_path: Path) -> None:
    await started(backend, job(generation=1))
    (old,) = processes(ALICE, tmp_path)
    await started(backend, job(generation=2))
    (new,) = processes(ALICE, tmp_path)
    assert old != new


async def test_a_stop_finds_what_left_the_group(backend: ProcessBackend, tmp_path: Path) -> None:
    await started(backend, job(env={"FAKE_STRAY": "1"}))
    assert len(processes(ALICE, tmp_path)) == 2
    await started(backend, job("bob"))
    await backend.stop(ALICE, grace=GRACE, up_to=NEWEST)
    assert processes(ALICE, tmp_path) == set()
    assert len(processes(workspace("bob").name, tmp_path)) == 1


async def test_the_next_worker_ends_what_nobody_claims(tmp_path: Path) -> None:
    first = backend_in(tmp_path)
    await first.open()
    await started(first, job(env={"FAKE_STRAY": "1"}))
    await started(first, job("bob"))
    await first.aclose()
    leader = json.loads((tmp_path / "workspaces" / ALICE / "state.json").read_text())["process"]["pid"]
    os.kill(leader, signal.SIGKILL)
    await until(lambda: os.waitpid(leader, os.WNOHANG) != (0, 0))
    assert len(processes(ALICE, tmp_path)) == 1
    async with opened(backend_in(tmp_path)) as second:
        assert processes(ALICE, tmp_path) == set()
        found = {found.record.name: found.running for found in await second.inventory()}
        assert found[ALICE] is None
        assert found[workspace("bob").name] is not None


async def test_a_worker_on_another_directory_leaves_them_alone(backend: ProcessBackend, tmp_path: Path) -> None:
    await started(backend, job())
    async with opened(backend_in(tmp_path / "other")):
        assert len(processes(ALICE, tmp_path)) == 1


async def test_a_reused_process_id_is_not_taken_for_the_workspace(tmp_path: Path) -> None:
    first = backend_in(tmp_path)
    await first.open()
    await started(first, job())
    await first.stop(ALICE, grace=GRACE, up_to=NEWEST)
    path = tmp_path / "workspaces" / ALICE / "state.json"
    state = json.loads(path.read_text())
    state["process"] = {"pid": os.getpid(), "start": 1, "boot": boot_id(), "port": 20000, "generation": 1}
    path.write_text(json.dumps(state))
    await first.aclose()
    async with opened(backend_in(tmp_path)) as second:
        (found,) = await second.inventory()
        assert found.running is None
        await second.stop(ALICE, grace=timedelta(0), up_to=NEWEST)


async def test_the_stubborn_are_made_to_go(backend: ProcessBackend, tmp_path: Path) -> None:
    await started(backend, job(env={"FAKE_STUBBORN": "1"}))
    begun = time.monotonic()
    await backend.stop(ALICE, grace=timedelta(seconds=0.3), up_to=NEWEST)
    assert 0.3 <= time.monotonic() - begun < 3
    assert processes(ALICE, tmp_path) == set()


async def test_a_start_that_is_cut_off_leaves_one_process_or_none(backend: ProcessBackend, tmp_path: Path) -> None:
    await backend.prepare(job(), report)
    for index in range(12):
        starting = asyncio.ensure_future(backend.start(job(generation=index + 1)))
        await asyncio.sleep(index / 1000)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await backend.stop(ALICE, grace=timedelta(0), up_to=NEWEST)
        assert processes(ALICE, tmp_path) == set()


async def test_a_command_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    async with opened(backend_in(tmp_path, "no-such-program --flag")) as backend:
        await backend.prepare(job(), report)
        with pytest.raises(BackendError, match="no-such-program is not there"):
            await backend.start(job())


async def test_erasing_follows_no_link_and_minds_no_closed_directory(backend: ProcessBackend, tmp_path: Path) -> None:
    await backend.prepare(job(), report)
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "file").write_text("kept")
    home = tmp_path / "workspaces" / ALICE / "home"
    (home / "link").symlink_to(outside)
    (home / "closed").mkdir()
    (home / "closed" / "file").write_text("gone")
    (home / "closed").chmod(0)
    await backend.erase(ALICE, up_to=NEWEST)
    assert not home.exists()
    assert list((tmp_path / "trash").iterdir()) == []
    assert (outside / "file").read_text() == "kept"
    await backend.erase(ALICE, up_to=NEWEST)


async def test_a_log_keeps_its_newer_half_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    with path.open("ab", buffering=0) as writer:
        for number in range(1000):
            writer.write(b"line %d\n" % number)
        assert log.trim(path, 4000)
        writer.write(b"the end\n")
    lines = path.read_text().splitlines()
    assert len(path.read_bytes()) <= 2100
    assert lines[-2:] == ["line 999", "the end"]
    assert not log.trim(path, 4000)
    assert log.tail(path, 20) == "line 999\nthe end\n"


def has_cgroups() -> bool:
    return isinstance(find_limiter("probe-of-the-tests"), Cgroups)


@pytest.mark.skipif(not has_cgroups(), reason="this machine lets the tests use no cgroup")
async def test_memory_is_limited_for_the_workspace_as_a_whole(tmp_path: Path) -> None:
    eater = "import time; data = bytearray(150 << 20); print('ate', flush=True); time.sleep(60)"
    both = (
        "import subprocess, sys\n"
        f"both = [subprocess.Popen([sys.executable, '-c', {eater!r}]) for _ in (1, 2)]\n"
        "print([one.wait() for one in both], flush=True)\n"
    )
    script = tmp_path / "both.py"
    script.write_text(both)
    async with opened(backend_in(tmp_path / "data", f"{sys.executable} -I -S {script}")) as backend:
        wanted = job(mem_limit=200 << 20, cpu_limit=0.5)
        await backend.prepare(wanted, report)
        await backend.start(wanted)
        output = tmp_path / "data" / "workspaces" / ALICE / "log.txt"
        await until(lambda: "ate" in output.read_text(), within=20)
        await until(lambda: len(processes(ALICE, tmp_path / "data")) < 3, within=20)
        assert "cgroups" in backend.limits
        sight = await backend.describe(ALICE)
        assert sight.memory_bytes is None or sight.memory_bytes <= 200 << 20


async def test_without_cgroups_one_process_is_guarded_and_that_is_said(tmp_path: Path) -> None:
    script = tmp_path / "eat.py"
    script.write_text("try:\n bytearray(300 << 20)\nexcept MemoryError:\n print('refused', flush=True)\n")
    settings = ProcessSettings(
        data_dir=tmp_path / "data", command=[sys.executable, "-I", "-S", str(script)], environment=ENVIRONMENT
    )
    async with opened(ProcessBackend(settings, limiter=lambda _: Guard())) as backend:
        wanted = job(mem_limit=200 << 20)
        await backend.prepare(wanted, report)
        await backend.start(wanted)
        end = await asyncio.wait_for(backend.wait(ALICE), 20)
        assert end.log_tail == "refused\n"
        assert "each process alone" in backend.limits


async def test_two_workspaces_never_share_a_port(backend: ProcessBackend) -> None:
    users = [f"user{number}" for number in range(5)]
    ups = await asyncio.gather(*(started(backend, job(user)) for user in users))
    assert len({up.endpoint.port for up in ups if up.endpoint}) == len(users)


async def test_a_port_that_somebody_took_meanwhile_is_a_reason_to_start_again(
    backend: ProcessBackend, tmp_path: Path
) -> None:
    wanted = job(env={"FAKE_DELAY": "0.5"})
    await backend.prepare(wanted, report)
    running = await backend.start(wanted)
    with socket.create_server((running.endpoint.host, running.endpoint.port)):
        end = await asyncio.wait_for(backend.wait(ALICE), 20)
    assert (end.code, end.again) == (1, True)
