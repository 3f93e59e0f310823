import stat
import subprocess
from pathlib import Path

import pytest

from mlhub_standalone import credentials
from mlhub_standalone.data_dir import DataDir

SERVICES = ("hub", "spawner-worker", "proxy", "cleanup", "ssh-gateway")


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    data = DataDir(tmp_path / "data")
    data.create()
    return data


def files(data: DataDir) -> dict[str, set[str]]:
    folder = data.secrets("x").parent
    return {place.name: {file.name for file in place.iterdir()} for place in folder.iterdir()}


def test_each_service_gets_what_it_needs_and_no_more(data: DataDir) -> None:
    credentials.make(data)
    found = files(data)
    assert found["spawner-worker"] == {"MLHUB_NATS_PASSWORD", "MLHUB_INTERNAL_TOKEN"}
    assert found["proxy"] == found["spawner-worker"] | {"MLHUB_PROXY_HUB_API_TOKEN"}
    assert "MLHUB_SSH_GATEWAY_HUB_API_TOKEN" not in found["cleanup"]
    assert "MLHUB_CLEANUP_HUB_API_TOKEN" not in found["ssh-gateway"]
    holders = {service for service in SERVICES if "attach_ed25519_key" in found[service]}
    assert holders == {"ssh-gateway"}


def test_only_the_owner_may_read_them(data: DataDir) -> None:
    credentials.make(data)
    assert stat.S_IMODE(data.root.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(file.stat().st_mode) for file in data.root.rglob("*") if file.is_file()}
    assert modes == {0o600}


def test_they_stay_the_same(data: DataDir) -> None:
    first = credentials.make(data)
    assert credentials.make(data) == first
    assert credentials.nats_password(data) == first.nats_password


def test_one_that_was_removed_comes_back_from_its_other_readers(data: DataDir) -> None:
    first = credentials.make(data)
    (data.secrets("hub") / "MLHUB_NATS_PASSWORD").unlink()
    (data.secrets("proxy") / "MLHUB_NATS_PASSWORD").write_text("")
    assert credentials.make(data) == first
    assert (data.secrets("hub") / "MLHUB_NATS_PASSWORD").read_text() == first.nats_password
    assert (data.secrets("proxy") / "MLHUB_NATS_PASSWORD").read_text() == first.nats_password


def test_no_two_instances_share_a_secret(data: DataDir, tmp_path: Path) -> None:
    other = DataDir(tmp_path / "other")
    other.create()
    one, two = credentials.make(data), credentials.make(other)
    assert one.nats_password != two.nats_password
    assert one.ssh_host_public != two.ssh_host_public
    assert one.gateway_public != one.ssh_host_public


def test_openssh_reads_the_keys(data: DataDir) -> None:
    made = credentials.make(data)
    run = subprocess.run(["ssh-keygen", "-y", "-f", made.gateway_key], capture_output=True, text=True, check=True)
    assert run.stdout.split()[:2] == made.gateway_public.split()[:2]


def test_the_passwords_are_not_shown_by_accident(data: DataDir) -> None:
    made = credentials.make(data)
    assert made.nats_password not in repr(made)


def test_a_given_secret_reaches_the_hub_alone_and_goes_when_it_is_taken_away(data: DataDir, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mlhub_admin_password").write_text("of the admin\n")
    (folder / "MLHUB_NATS_PASSWORD").write_text("of another bus")
    credentials.make(data)
    (folder / "MLHUB_HUB_DATABASE_URL").write_text("postgresql://hub:secret@db/hub")
    credentials.take_given(data, {"MLHUB_SECRETS_DIR": str(folder)})
    holders = [service for service, names in files(data).items() if "MLHUB_ADMIN_PASSWORD" in names]
    assert holders == ["hub"]
    assert (data.secrets("hub") / "MLHUB_HUB_DATABASE_URL").is_file()
    copy = data.secrets("hub") / "MLHUB_ADMIN_PASSWORD"
    assert copy.read_text() == "of the admin"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert credentials.nats_password(data) != "of another bus"
    credentials.take_given(data, {})
    assert not copy.exists()


def test_a_certificate_reaches_the_proxy_alone_and_is_written_anew_only_when_it_is_another(
    data: DataDir, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("cert.crt", "cert.key"):
        (folder / name).write_text(f"-----BEGIN {name}\n")
    credentials.make(data)
    credentials.take_given(data, {"MLHUB_SECRETS_DIR": str(folder)})
    assert [service for service, names in files(data).items() if "cert.key" in names] == ["proxy"]
    copy = data.secrets("proxy") / "cert.crt"
    assert copy.read_text() == "-----BEGIN cert.crt\n"
    before = copy.stat().st_ino
    credentials.take_given(data, {"MLHUB_SECRETS_DIR": str(folder)})
    assert copy.stat().st_ino == before
    (folder / "cert.crt").write_text("another")
    credentials.take_given(data, {"MLHUB_SECRETS_DIR": str(folder)})
    assert copy.read_text() == "another\n"
