"""Wrong settings are said loudly, and the user's own configuration wins."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from mlhub_hub.settings import HubSettings
from mlhub_shared.bus import Bus
from mlhub_shared.runtime import configuration
from tests.conftest import bus_settings
from tests.hub.browser import browser_at
from tests.support.hub_process import Api, HubProcess
from tests.support.nats_server import NatsServer

SECRET = "a-secret-value"


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"MLHUB_API_TOKEN": SECRET}, "MLHUB_API_TOKEN must have at least 32 characters"),
        (
            {"MLHUB_HUB_BACKEND": "kubernetes", "MLHUB_KEEP_VOLUMES_DAYS": "7"},
            "MLHUB_KEEP_VOLUMES_DAYS: on Kubernetes files are kept by a storage class",
        ),
        ({"MLHUB_HUB_USER_CONFIG": "/no/such/file.py"}, "there is no file /no/such/file.py"),
        ({"MLHUB_HUB_WORKSPACES": "whatever"}, "Input should be 'self-service', 'handed-out' or 'one-each'"),
        ({"MLHUB_HUB_PUBLIC_URL": "example.org"}, "must be an address such as http://127.0.0.1:8080"),
        ({"MLHUB_HUB_NAME": "My Hub"}, "MLHUB_HUB_NAME"),
        ({"MLHUB_HUB_BACKEND": "auto"}, "Input should be 'process', 'docker' or 'kubernetes'"),
        ({"MLHUB_HUB_COOKIE_SECRET": SECRET}, "MLHUB_HUB_COOKIE_SECRET: must be 64 hexadecimal digits"),
        ({"MLHUB_MAX_MEM": "plenty"}, "must be a size such as 2G or 512M"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_settings_end_the_hub_with_a_sentence(tmp_path: Path, environment: dict[str, str], sentence: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mlhub_hub"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == configuration.EXIT_CODE
    assert sentence in run.stderr
    assert "Traceback" not in run.stderr
    assert SECRET not in run.stderr


@pytest.mark.parametrize(
    ("profiles", "sentence"),
    [
        (None, "can't be read: No such file or directory"),
        ("profiles: [", "is not YAML"),
        ("profiles: []", "profiles: Tuple should have at least 1 item"),
        ("profiles: [{name: a}]", "profiles.0.image: Field required"),
        ("profiles: [{name: a, image: b, cpus: 3}]", "profiles.0.cpus: Extra inputs are not permitted"),
        ("profiles: [{name: a, image: b}, {name: a, image: c}]", "two profiles have the same name"),
        ("profiles: [{name: a, image: b, capabilities: [SYS_ADMIN]}]", "no workspace may have SYS_ADMIN"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_profiles_end_the_hub_with_their_place(tmp_path: Path, profiles: str | None, sentence: str) -> None:
    file = tmp_path / "profiles.yaml"
    if profiles is not None:
        file.write_text(profiles)
    run = subprocess.run(
        [sys.executable, "-m", "mlhub_hub"],
        cwd=tmp_path,
        env={"MLHUB_HUB_BACKEND": "docker", "MLHUB_PROFILES_FILE": str(file)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == configuration.EXIT_CODE
    assert sentence in run.stderr
    assert "Traceback" not in run.stderr


def test_a_configuration_that_fails_ends_the_hub_with_its_place(tmp_path: Path) -> None:
    config = tmp_path / "jupyterhub_user_config.py"
    config.write_text("c.JupyterHub.admin_access = False\nc.Spawner.cmd = undefined\n")
    run = subprocess.run(
        [sys.executable, "-m", "mlhub_hub"],
        cwd=tmp_path,
        env={"MLHUB_HUB_USER_CONFIG": str(config)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == configuration.EXIT_CODE
    assert f"{config}: line 2: NameError: name 'undefined' is not defined" in run.stderr
    assert "Traceback" not in run.stderr


async def test_the_users_configuration_wins_and_adds(nats_server: NatsServer, bus: Bus, tmp_path: Path) -> None:
    config = tmp_path / "jupyterhub_user_config.py"
    config.write_text(
        "c.JupyterHub.admin_access = False\n"
        "c.JupyterHub.services.append({'name': 'mine', 'api_token': 'the-token-of-my-own-service'})\n"
        "c.JupyterHub.load_roles.append({'name': 'mine', 'services': ['mine'], 'scopes': ['list:users']})\n"
        "c.JupyterHub.default_url = '/hub/token'\n"
        "c.Spawner.environment = {'MINE': '1'}\n"
        "c.JupyterHub.tornado_settings = {'headers': {'X-Mine': 'yes'}}\n"
    )
    hub = HubProcess(tmp_path / "hub", nats_server, "http://127.0.0.1:9", MLHUB_HUB_USER_CONFIG=str(config))
    # A file that only happens to lie where the hub is started is not read.
    hub.folder.mkdir()
    (hub.folder / "jupyterhub_config.py").write_text("raise RuntimeError('read by accident')\n")
    await hub.start()
    try:
        api = Api(hub)
        await Api(hub, "the-token-of-my-own-service")("GET", "/users", expect=200)
        async with httpx.AsyncClient(base_url=hub.url) as client:
            answer = await client.get("/hub/login")
            assert answer.headers["X-Mine"] == "yes"
            assert "Content-Security-Policy" in answer.headers
        await api("POST", "/users/ada", expect=201)
        # What the user's file does not name stays as it is: a start is answered at once.
        asked = time.monotonic()
        await api("POST", "/users/ada/server", {"cpu_limit": 1}, expect=202)
        assert time.monotonic() - asked < 5
        entry = None
        for _ in range(100):
            if (entry := await bus.secrets.get("ws-ada-test")) is not None:
                break
        assert entry is not None
        assert entry.value.env["MINE"] == "1"
        assert "JUPYTERHUB_ADMIN_ACCESS" not in entry.value.env
    finally:
        await hub.stop()


async def test_the_hub_ends_quickly_although_the_bus_is_away(nats_server: NatsServer, tmp_path: Path) -> None:
    hub = await HubProcess(tmp_path / "hub", nats_server, "http://127.0.0.1:9").start()
    await nats_server.kill()
    assert await hub.stop() == 0


async def test_the_hub_waits_for_a_bus_that_starts_later(tmp_path: Path) -> None:
    nats = NatsServer(tmp_path / "nats")
    hub = HubProcess(tmp_path / "hub", nats, "http://127.0.0.1:9")
    await hub.begin()
    try:
        await nats.start()
        await hub.answers()
        bus = await Bus.open(bus_settings(nats))
        await bus.close()
    finally:
        await hub.stop()
        await nats.stop()


async def test_the_data_are_the_hubs_alone(nats_server: NatsServer, tmp_path: Path) -> None:
    hub = await HubProcess(tmp_path / "hub", nats_server, "http://127.0.0.1:9").start()
    try:
        data = hub.folder / "data"
        assert data.stat().st_mode & 0o077 == 0
        assert (data / "jupyterhub.sqlite-wal").exists()
    finally:
        await hub.stop()


async def test_logins_outlive_the_loss_of_the_data_directory_by_a_given_secret(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path / 'accounts.sqlite'}"
    given = {"MLHUB_HUB_COOKIE_SECRET": "ab" * 32, "MLHUB_HUB_DATABASE_URL": database}
    hub = HubProcess(tmp_path / "hub", nats_server, "http://127.0.0.1:9", **given)
    await hub.start()
    try:
        async with browser_at(hub.url) as browser:
            assert (await browser.get("/hub/home")).status_code == 200
            await hub.stop()
            shutil.rmtree(hub.folder / "data")
            await hub.start()
            assert (await browser.get("/hub/home")).status_code == 200
        assert not (hub.folder / "data/jupyterhub_cookie_secret").exists()
    finally:
        await hub.stop()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgres://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+psycopg2://h/d", "postgresql+psycopg2://h/d"),
        ("sqlite:////a/b", "sqlite:////a/b"),
    ],
)
def test_the_driver_that_is_there_is_taken_where_none_is_named(given: str, meant: str) -> None:
    assert HubSettings(hub_name="test", database_url=given).database() == meant
