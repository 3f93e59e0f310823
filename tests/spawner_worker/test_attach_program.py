"""What a session runs, and with which environment."""

import sys
from pathlib import Path

import pytest

from mlhub_spawner_worker.attach import Entry, program


def test_opensshs_own_sftp_server_comes_first_if_it_can_be_run(tmp_path: Path) -> None:
    there, broken = tmp_path / "sftp-server", tmp_path / "not-executable"
    there.touch(mode=0o755)
    broken.touch(mode=0o644)
    assert program.sftp((tmp_path / "missing", broken, there)) == [str(there)]
    assert program.sftp((broken,))[0] == sys.executable


@pytest.mark.parametrize(
    ("environment", "shell"),
    [({"SHELL": "/bin/sh"}, "/bin/sh"), ({"SHELL": "/missing"}, "/bin/bash"), ({}, "/bin/bash")],
)
def test_the_shell_is_the_workspaces_where_there_is_one(environment: dict[str, str], shell: str) -> None:
    assert program.login_shell(environment) == [shell, "-l"]
    assert program.command(environment, "a b") == [shell, "-c", "a b"]


def test_a_client_sets_its_language_and_nothing_else(tmp_path: Path) -> None:
    entry = Entry(tmp_path, {"PATH": "/bin", "LANG": "C"})
    client = {"LANG": "de", "LC_ALL": "de", "PATH": "/evil", "LD_PRELOAD": "evil", "MLHUB_WORKSPACE": "other"}
    assert program.environment_for("ws-a", entry, client, {"TERM": "xterm"}) == {
        "PATH": "/bin",
        "LANG": "de",
        "LC_ALL": "de",
        "TERM": "xterm",
        "MLHUB_WORKSPACE": "ws-a",
    }


def test_the_marker_is_the_workers_where_it_has_set_one(tmp_path: Path) -> None:
    entry = Entry(tmp_path, {"MLHUB_WORKSPACE": "its own"})
    assert program.environment_for("ws-a", entry, {}, {})["MLHUB_WORKSPACE"] == "its own"
