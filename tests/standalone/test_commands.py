import json
import socket
import stat
from pathlib import Path

import pytest

from mlhub_standalone import cli
from mlhub_standalone.commands import run
from mlhub_standalone.data_dir import DataDir
from mlhub_standalone.lock import InstanceLock
from tests.support.ports import free_port


def test_status_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--data-dir", str(tmp_path / "x")]) == 3
    assert "mlhub up" in capsys.readouterr().out
    assert run(["status", "--json", "--data-dir", str(tmp_path / "x")]) == 3
    assert json.loads(capsys.readouterr().out)["parts"] == []


def test_down_of_nothing_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["down", "--data-dir", str(tmp_path / "x")]) == 0
    assert "no ML Hub" in capsys.readouterr().out
    assert not (tmp_path / "x").exists()


def test_containers_without_an_engine_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    assert run(["up", "--backend", "docker", "--data-dir", str(tmp_path / "x")]) == 1
    said = capsys.readouterr().err
    assert "there is no Docker engine" in said
    assert "--backend process" in said
    assert not DataDir(tmp_path / "x").exists()


def test_the_name_of_an_old_hub_that_can_not_be_is_answered_with_one_that_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_NAME", "My-Hb")
    assert run(["up", "--backend", "process", "--data-dir", str(tmp_path / "x")]) == 1
    assert "'My-Hb' can't name a hub" in (said := capsys.readouterr().err)
    assert "such as myhb" in said


def test_what_may_ask_for_https_is_not_given_http(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_ENABLED", "ja")
    assert run(["up", "--backend", "process", "--data-dir", str(tmp_path / "x")]) == 1
    assert "SSL_ENABLED takes on or off, not 'ja'" in capsys.readouterr().err
    assert not DataDir(tmp_path / "x").exists()


def test_in_a_container_up_is_what_is_meant_and_its_defaults_are_others() -> None:
    options = cli.parse([], cli.IN_CONTAINER)
    asked = cli.asked(options)
    assert options.command == "up"
    assert (str(cli.data_dir(options).root), asked.host, asked.in_container) == ("/data", "0.0.0.0", True)  # noqa: S104
    assert cli.asked(cli.parse(["up", "--host", "::1"], cli.IN_CONTAINER)).host == "::1"
    with pytest.raises(SystemExit):
        cli.parse([], cli.Defaults())


def test_the_data_directory_can_be_set_by_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLHUB_STANDALONE_DATA_DIR", str(tmp_path / "elsewhere"))
    assert run(["status"]) == 3
    assert str(tmp_path / "elsewhere") in capsys.readouterr().out


def test_a_second_up_says_who_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = DataDir(tmp_path / "x")
    data.create()
    lock = InstanceLock(data)
    lock.acquire()
    assert run(["up", "--data-dir", str(data.root)]) == 1
    assert f"already running on {data.root}" in capsys.readouterr().err


def test_a_taken_port_ends_up_before_anything_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = DataDir(tmp_path / "x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["up", "--backend", "process", "--port", str(port), "--data-dir", str(data.root)]) == 1
    assert "mlhub up --port PORT" in capsys.readouterr().err
    assert not data.exists()
    assert InstanceLock(data).holder() is None


@pytest.mark.parametrize("arguments", [["--port", "0"], ["--port", "65536"], ["--capacity", "-1"], ["--port", "off"]])
def test_numbers_that_can_not_be_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run(["up", *arguments])
    assert left.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_the_doctor_finds_what_is_wrong_and_says_what_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataDir(tmp_path / "x")
    data.create()
    arguments = ["doctor", "--port", str(free_port()), "--ssh-port", str(free_port()), "--data-dir", str(data.root)]
    assert run(arguments) == 0
    assert "fail" not in capsys.readouterr().out

    data.root.chmod(data.root.stat().st_mode | stat.S_IROTH)
    monkeypatch.setenv("MLHUB_STANDALONE_NATS_SERVER", "/no/such/nats-server")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments[2] = str(taken.getsockname()[1])
        assert run(arguments) == 1
    report = capsys.readouterr().out
    assert "fail  nats-server" in report
    assert "fail  web port" in report
    assert f"chmod 700 {data.root}" in report
    assert "2 things to mend" in report


def test_the_doctor_tells_of_https(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["doctor", "--port", str(free_port()), "--ssh-port", "off", "--data-dir", str(tmp_path / "x")]
    assert run([*arguments, "--host", "0.0.0.0"]) == 0  # noqa: S104
    assert "warn  https        off: passwords travel in the clear" in (said := capsys.readouterr().out)
    assert "ssh port" not in said
    assert run([*arguments, "--tls"]) == 0
    assert "https        on; " in capsys.readouterr().out
