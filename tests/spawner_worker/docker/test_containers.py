"""What a workspace's container is: its limits, rights, environment and mounts, as the engine has them."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlhub_shared.contracts.policy import SharedVolume
from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_spawner_worker.backends.base import BackendError, Job
from mlhub_spawner_worker.backends.docker import body, gpus
from mlhub_spawner_worker.backends.docker.images import Image
from mlhub_spawner_worker.backends.docker.place import DefaultBridge, NetworkPlace
from tests.spawner_worker.docker.conftest import Stand
from tests.support.docker_engine import IMAGE, PORT, profile
from tests.support.makers import NEWEST
from tests.support.workers import direct

MIB = 1024 * 1024
AT_ONCE = timedelta(0)


async def environment(stand: Stand, name: str) -> dict[str, str]:
    pairs = (await stand.inspect(name))["Config"]["Env"]
    return dict(pair.split("=", 1) for pair in pairs)


async def test_limits_and_rights_are_those_of_the_record_and_the_profile(stand: Stand) -> None:
    strict = profile(pids_limit=77, capabilities=("CHOWN", "SETUID"))
    async with stand.backend(profiles=(strict,)) as backend:
        job = stand.job(cpu_limit=0.5, mem_limit=64 * MIB, shm_size=16 * MIB)
        await stand.run(backend, job)
        shown = await stand.inspect(job.name)
    host = shown["HostConfig"]
    assert host["NanoCpus"] == 500_000_000
    assert host["Memory"] == host["MemorySwap"] == 64 * MIB
    assert host["ShmSize"] == 16 * MIB
    assert host["PidsLimit"] == 77
    assert host["CapDrop"] == ["ALL"]
    assert sorted(capability.removeprefix("CAP_") for capability in host["CapAdd"]) == ["CHOWN", "SETUID"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Privileged"] is False
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["LogConfig"]["Config"]["max-size"]
    status = await asyncio.to_thread(Path(f"/proc/{shown['State']['Pid']}/status").read_text)
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status


async def test_more_cores_than_the_node_has_are_all_it_has(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job(cpu_limit=512))
        assert backend.cpu_total is not None
        shown = await stand.inspect(stand.job().name)
        assert shown["HostConfig"]["NanoCpus"] == round(backend.cpu_total * 1e9)


async def test_who_asks_for_nothing_gets_what_the_node_can_give_and_no_more(stand: Stand) -> None:
    async with stand.backend() as backend:
        await stand.run(backend, stand.job())
        assert backend.cpu_total is not None
        assert backend.mem_total is not None
        host = (await stand.inspect(stand.job().name))["HostConfig"]
        assert host["NanoCpus"] == round(backend.cpu_total * 1e9)
        assert 0.85 * backend.mem_total < host["Memory"] < 0.95 * backend.mem_total
        assert host["MemorySwap"] == host["Memory"]


async def test_entry_point_and_command_are_the_image_s_own_unless_the_profile_has_one(stand: Stand) -> None:
    other = profile(name="other", command=("/server", "--more"), privilege_escalation=True)
    async with stand.backend(profiles=(profile(), other)) as backend:
        await stand.run(backend, stand.job())
        await stand.run(backend, stand.job("bob", profile="other"))
        assert (await stand.inspect(stand.job().name))["Config"]["Cmd"] == ["/server"]
        shown = await stand.inspect(stand.job("bob").name)
        assert shown["Config"]["Cmd"] == ["/server", "--more"]
        assert shown["HostConfig"]["SecurityOpt"] in ([], None)


async def test_the_workspace_answers_at_its_endpoint(stand: Stand) -> None:
    async with stand.backend(profiles=(profile(port=9999),)) as backend:
        job = stand.job()
        running = await stand.run(backend, job)
        assert running.endpoint.port == 9999
        record: WorkspaceRecord = job.record.model_copy(update={"endpoint": running.endpoint})
        async with asyncio.timeout(5):
            while not await direct(record):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


class Published(DefaultBridge):
    """A place whose containers are reached at the node's address."""

    async def attach(self, user: str) -> NetworkPlace:
        return NetworkPlace("bridge", extra_hosts=("mlhub:192.0.2.7",), publish_on="127.0.0.1")


async def test_a_published_workspace_is_reached_at_the_node_s_address(stand: Stand) -> None:
    async with stand.backend(networks=Published()) as backend:
        job = stand.job()
        running = await stand.run(backend, job)
        assert running.endpoint.host == "127.0.0.1"
        record: WorkspaceRecord = job.record.model_copy(update={"endpoint": running.endpoint})
        async with asyncio.timeout(5):
            while not await direct(record):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert "mlhub:192.0.2.7" in (await stand.inspect(job.name))["HostConfig"]["ExtraHosts"]


async def test_nobody_s_environment_overrides_what_the_hub_says(stand: Stand) -> None:
    theirs = {
        "JUPYTERHUB_SERVICE_URL": "http://evil/",
        "JUPYTERHUB_API_TOKEN": "forged",
        "AUTHENTICATE_VIA_JUPYTER": "false",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "SSH_JUMPHOST_TARGET": "other",
        "MLHUB_WORKSPACE": "other",
        "SHUTDOWN_INACTIVE_KERNELS": "600",
        "COLOUR": "blue",
    }
    async with stand.backend(profiles=(profile(env={"COLOUR": "red", "PROFILE": "1"}),)) as backend:
        job = stand.job(env=theirs, cpu_limit=1.5)
        await stand.run(backend, job)
        found = await environment(stand, job.name)
    assert found["JUPYTERHUB_SERVICE_URL"] == f"http://0.0.0.0:{PORT}{job.record.base_url}"
    assert found["JUPYTERHUB_SERVICE_PREFIX"] == job.record.base_url
    assert found["JUPYTERHUB_API_TOKEN"] == "canary-token"
    assert found["AUTHENTICATE_VIA_JUPYTER"] == "true"
    assert found["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert found["SSH_JUMPHOST_TARGET"] == found["MLHUB_WORKSPACE"] == job.name
    assert found["MAX_NUM_THREADS"] == "2"
    assert (found["SHUTDOWN_INACTIVE_KERNELS"], found["COLOUR"], found["PROFILE"]) == ("600", "blue", "1")
    assert found["MINE"] == "canary-mine"
    assert found["FROM_IMAGE"] == "1"


async def test_labels_tell_whose_it_is_and_carry_no_secret(stand: Stand) -> None:
    async with stand.backend() as backend:
        job = stand.job("Alice@Example", "gpu 1")
        await stand.run(backend, job)
        carried = (await stand.inspect(job.name))["Config"]["Labels"]
    assert carried["mlhub.origin"] == stand.hub
    assert carried["mlhub.user"] == "Alice@Example"
    assert carried["mlhub.server_name"] == "gpu 1"
    assert carried["mlhub.generation"] == "1"
    assert "canary" not in json.dumps(carried)


async def test_shared_data_are_read_only_unless_the_profile_says_otherwise(stand: Stand, tmp_path: Path) -> None:
    data = tmp_path / "data-set"
    data.mkdir()
    volumes = (
        SharedVolume(source=str(data), target="/data"),
        SharedVolume(source=f"{stand.hub}-shared", target="/shared", read_only=False),
    )
    async with stand.backend(profiles=(profile(volumes=volumes),)) as backend:
        refused = await stand.ends(backend, stand.job(env={"FAKE_WRITE": "/data/x"}))
        assert "Read-only file system" in refused.log_tail
        await backend.stop(stand.job().name, grace=AT_ONCE, up_to=NEWEST)
        job = stand.job("bob", env={"FAKE_WRITE": "/shared/x"})
        await stand.run(backend, job)
        assert (await backend.describe(job.name)).running
        await backend.stop(job.name, grace=AT_ONCE, up_to=NEWEST)
    await (await stand.docker.volumes.get(f"{stand.hub}-shared")).delete()


@pytest.fixture
def mounted_below(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own in a folder of another one."""
    below = tmp_path / "data-set" / "below"
    below.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "below", below], check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here, which only root may")
    yield below
    subprocess.run(["umount", below], check=True)


@pytest.mark.parametrize("read_only", [True, False])
async def test_nothing_below_shared_data_can_be_written_unless_the_profile_says_so(
    stand: Stand, mounted_below: Path, read_only: bool
) -> None:
    volume = SharedVolume(source=str(mounted_below.parent), target="/data", read_only=read_only)
    async with stand.backend(profiles=(profile(volumes=(volume,)),)) as backend:
        ended = await stand.ends(backend, stand.job(env={"FAKE_WRITE": "/data/below/x", "FAKE_EXIT": "0"}))
        await backend.stop(stand.job().name, grace=AT_ONCE, up_to=NEWEST)
    assert (mounted_below / "x").exists() is not read_only
    assert ("Read-only file system" in ended.log_tail) is read_only


def plan_of(job: Job, **changes: Any) -> body.Plan:
    values: dict[str, Any] = {
        "job": job,
        "profile": profile(),
        "image": Image(IMAGE, "sha256:1"),
        "place": NetworkPlace("bridge"),
        "volume": None,
        "boot": "b",
        "cores": 2.0,
        "memory": 1024 * MIB,
        "max_log_bytes": 1000,
    }
    return body.Plan(**(values | changes))


async def test_nfs_is_mounted_by_the_engine(stand: Stand) -> None:
    shared = SharedVolume(source="nfs://files.example/exports/data", target="/data")
    made = body.container(plan_of(stand.job(), profile=profile(volumes=(shared,))))
    (mount,) = made["HostConfig"]["Mounts"]
    assert mount["ReadOnly"] is True
    options = mount["VolumeOptions"]["DriverConfig"]["Options"]
    assert options["device"] == ":/exports/data"
    assert options["o"].startswith("addr=files.example,ro")


async def test_an_image_with_an_init_of_its_own_gets_no_second_one(stand: Stand) -> None:
    for entrypoint, init in (((), True), (("/tini", "-g", "--"), False), (("/start.sh",), True)):
        made = body.container(plan_of(stand.job(), image=Image(IMAGE, "sha256:1", entrypoint)))
        assert made["HostConfig"]["Init"] is init


async def test_the_engine_is_asked_for_the_very_gpus_of_the_record(stand: Stand) -> None:
    async with stand.backend(gpus="0,1,2") as backend:
        assert backend.gpus == ("0", "1", "2")
        assert backend.gpus_allowed
        job = stand.job(gpus="1,2")
        job = Job(job.record.model_copy(update={"gpu_ids": ("1", "2")}), job.secrets)
        await backend.prepare(job, stand.report)
        made = body.container(plan_of(job))
        container = await stand.docker.containers.create(made, name=job.name)
        shown = await container.show()
        (request,) = shown["HostConfig"]["DeviceRequests"]
        assert (request["Driver"], request["DeviceIDs"]) == ("nvidia", ["1", "2"])
        assert request["Capabilities"] == [["gpu"]]
        assert "NVIDIA_VISIBLE_DEVICES=1,2" in shown["Config"]["Env"]
        # This engine has no GPU: the backend says so, and leaves nothing behind.
        with pytest.raises(BackendError, match="could not select device driver"):
            await backend.start(job)
        assert job.name not in await stand.names("containers")


@pytest.mark.parametrize(
    ("setting", "info", "ids"),
    [
        ("", {"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}, ()),
        ("0, 2,2", {}, ("0", "2")),
        ("auto", {}, ()),
        ("auto", {"GenericResources": None, "DiscoveredDevices": None}, ()),
        (
            "auto",
            {"DiscoveredDevices": [{"ID": f"nvidia.com/gpu={one}"} for one in ("10", "0", "GPU-af", "all")]},
            ("0", "10"),
        ),
        ("auto", {"GenericResources": [{"NamedResourceSpec": {"Kind": "NVIDIA-GPU", "Value": "GPU-af"}}]}, ("GPU-af",)),
        ("auto", {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]}, ("0", "1")),
        ("auto", {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "SSD", "Value": 2}}]}, ()),
    ],
)
def test_gpus_are_those_of_the_setting_or_of_the_engine(setting: str, info: dict[str, object], ids: tuple[str]) -> None:
    assert gpus.found(setting, info) == ids


async def test_a_name_that_a_stranger_s_container_has_is_left_alone_and_told(stand: Stand) -> None:
    job = stand.job()
    stranger = await stand.docker.containers.create({"Image": IMAGE}, name=job.name)
    try:
        async with stand.backend() as backend:
            with pytest.raises(BackendError, match="this hub has not made"):
                await stand.run(backend, job)
            with pytest.raises(BackendError, match="this hub has not made"):
                await stand.run(backend, stand.job(is_mount_volume=False))
            await backend.stop(job.name, grace=AT_ONCE, up_to=NEWEST)
            await backend.erase(job.name, up_to=NEWEST)
        assert (await stranger.show())["Id"] == stranger.id
    finally:
        await stranger.delete(force=True)


async def test_a_container_of_the_first_hub_gets_no_empty_volume_beside_it(stand: Stand) -> None:
    job = stand.job()
    body: dict[str, Any] = {"Image": IMAGE, "Labels": {"mlhub.origin": stand.hub, "mlhub.user": "alice"}}
    await stand.docker.containers.create(body, name=job.name)
    async with stand.backend() as backend:
        with pytest.raises(BackendError, match="of the first ML Hub"):
            await stand.run(backend, job)
        await backend.stop(job.name, grace=AT_ONCE, up_to=NEWEST)
        assert await stand.names("volumes") == set()
    assert await stand.names("containers") == {job.name}


async def test_what_can_not_be_started_says_why_and_leaves_no_container(stand: Stand) -> None:
    async with stand.backend(profiles=(profile(user="nobody-knows"),)) as backend:
        await backend.prepare(stand.job(), stand.report)
        with pytest.raises(BackendError, match="nobody-knows"):
            await backend.start(stand.job())
        assert await stand.names("containers") == set()


@pytest.mark.parametrize("width", [1, 4])
async def test_many_start_side_by_side(stand: Stand, width: int) -> None:
    async with stand.backend(engine_calls=width) as backend:
        jobs = [stand.job(f"user{number}", is_mount_volume=False) for number in range(8)]
        started = await asyncio.gather(*(stand.run(backend, job) for job in jobs))
        assert len({running.endpoint.host for running in started}) == len(jobs)
        assert len(await stand.names("containers")) == len(jobs)
        # An older container in the way takes no second turn.
        newer = stand.job("user0", generation=2, is_mount_volume=False)
        assert (await stand.run(backend, newer)).generation == 2


async def test_what_is_seen_of_a_workspace_is_what_it_uses(stand: Stand) -> None:
    async with stand.backend() as backend:
        job = stand.job(env={"FAKE_EAT": "20"}, mem_limit=128 * MIB)
        await stand.run(backend, job)
        await asyncio.sleep(0.5)
        sight = await backend.describe(job.name)
        assert sight.memory_bytes is not None
        assert 20 * MIB <= sight.memory_bytes < 128 * MIB
        assert sight.cpu_seconds is not None
        assert "the server starts" in sight.log_tail
        entry = backend.session(job.name)
        assert entry is not None
