"""The secrets of a deployment of containers, in folders that stand for the volumes."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlhub_standalone.data_dir import DataDir
from mlhub_standalone.volume_secrets import fill

SERVICES = ("nats", "hub", "spawner-worker", "cleanup", "ssh-gateway", "proxy")


@pytest.fixture
def volumes(tmp_path: Path) -> DataDir:
    for service in SERVICES:
        (tmp_path / "secrets" / service).mkdir(parents=True)
    return DataDir(tmp_path)


def content(data: DataDir) -> dict[str, str]:
    root = data.root / "secrets"
    return {str(file.relative_to(root)): file.read_text() for file in root.rglob("*") if file.is_file()}


def test_each_service_finds_what_it_needs_and_no_more(volumes: DataDir) -> None:
    fill(volumes, owner=os.getuid(), person={})
    found = content(volumes)
    assert {name for name in found if name.startswith("cleanup/")} == {
        "cleanup/MLHUB_NATS_PASSWORD",
        "cleanup/MLHUB_INTERNAL_TOKEN",
        "cleanup/MLHUB_CLEANUP_HUB_API_TOKEN",
    }
    assert found["hub/MLHUB_CLEANUP_HUB_API_TOKEN"] == found["cleanup/MLHUB_CLEANUP_HUB_API_TOKEN"]
    assert found["nats/MLHUB_NATS_PASSWORD"] in found["nats/nats.conf"]
    # The two halves of the key that opens the workers' attach endpoint lie apart.
    public = found["ssh-gateway/attach_ed25519_key.pub"].strip()
    assert found["spawner-worker/MLHUB_SPAWNER_WORKER_GATEWAY_PUBLIC_KEY"] == public
    assert [name for name, text in found.items() if "PRIVATE KEY" in text] == [
        name for name in found if name.endswith("ed25519_key")
    ]


def test_another_run_changes_nothing_and_a_lost_volume_comes_back(volumes: DataDir) -> None:
    fill(volumes, owner=os.getuid(), person={})
    before = content(volumes)
    fill(volumes, owner=os.getuid(), person={})
    assert content(volumes) == before
    for service in ("hub", "nats"):
        shutil.rmtree(volumes.secrets(service))
        volumes.secrets(service).mkdir()
        fill(volumes, owner=os.getuid(), person={})
        assert content(volumes) == before


def run(volumes: DataDir, **person: str) -> "subprocess.CompletedProcess[str]":
    """As the container does."""
    command = [sys.executable, "-m", "mlhub_standalone.volume_secrets", str(volumes.root), "--owner", str(os.getuid())]
    return subprocess.run(command, env=person, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_the_person_keeps_in_files_reaches_the_hub_alone(volumes: DataDir, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "MLHUB_ADMIN_PASSWORD").write_text("of the admin\n")
    assert run(volumes, MLHUB_SECRETS_DIR=str(given)).returncode == 0
    assert [name for name, text in content(volumes).items() if text == "of the admin"] == ["hub/MLHUB_ADMIN_PASSWORD"]
    assert stat.S_IMODE((volumes.secrets("hub") / "MLHUB_ADMIN_PASSWORD").stat().st_mode) == 0o400
    (given / "MLHUB_ADMIN_PASSWORD").unlink()
    assert run(volumes, MLHUB_SECRETS_DIR=str(given)).returncode == 0
    assert "hub/MLHUB_ADMIN_PASSWORD" not in content(volumes)


def test_what_would_be_dangerous_to_ignore_ends_the_start_of_a_deployment(volumes: DataDir) -> None:
    refused = run(volumes, EXECUTION_MODE="k8s")
    assert refused.returncode == 1
    assert "EXECUTION_MODE=k8s: this is a hub for one machine" in refused.stderr
    assert content(volumes) == {}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_other_old_variables_are_answered_in_its_log(volumes: DataDir) -> None:
    told = run(volumes, START_SSH="false", START_CHP="true")
    assert told.returncode == 0
    assert [line.partition(":")[0] for line in told.stdout.splitlines()] == ["START_SSH=false", "START_CHP=true"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_every_file_is_its_readers_alone(volumes: DataDir) -> None:
    volumes.nats.mkdir()
    command = [sys.executable, "-m", "mlhub_standalone.volume_secrets", str(volumes.root), "--owner", "10001"]
    subprocess.run(command, check=True, timeout=30)
    for path in (volumes.root / "secrets").rglob("*"):
        expected = 0 if "spawner-worker" in path.parts else 10001
        assert (path, path.stat().st_uid) == (path, expected)
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert volumes.nats.stat().st_uid == 10001
