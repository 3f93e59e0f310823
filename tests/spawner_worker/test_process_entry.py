"""What an order means in a workspace of this machine."""

import sys
from pathlib import Path

import pytest

from mlhub_spawner_worker.backends.process.entry import arguments
from mlhub_spawner_worker.entry import Order, What


def test_opensshs_own_sftp_server_comes_first_if_it_can_be_run(tmp_path: Path) -> None:
    there, broken = tmp_path / "sftp-server", tmp_path / "not-executable"
    there.touch(mode=0o755)
    broken.touch(mode=0o644)
    assert arguments(Order(What.SFTP), {}, sftp_servers=(tmp_path / "missing", broken, there)) == [str(there)]
    assert arguments(Order(What.SFTP), {}, sftp_servers=(broken,))[0] == sys.executable


@pytest.mark.parametrize(
    ("environment", "shell"),
    [({"SHELL": "/bin/sh"}, "/bin/sh"), ({"SHELL": "/missing"}, "/bin/bash"), ({}, "/bin/bash")],
)
def test_the_shell_is_the_workspaces_where_there_is_one(environment: dict[str, str], shell: str) -> None:
    assert arguments(Order(What.SHELL), environment) == [shell, "-l"]
    assert arguments(Order(What.COMMAND, "a b"), environment) == [shell, "-c", "a b"]
