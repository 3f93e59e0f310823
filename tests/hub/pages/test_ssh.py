"""The lines that people copy to come in over SSH."""

import shlex
import subprocess
from pathlib import Path

import pytest

from mlhub_hub.pages.ssh import instructions
from tests.support.makers import workspace

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJkyVrE4pWmsUcJw6DcmSm9vTbQYq3Vf0N1yZsG3ZyqQ gateway"


@pytest.mark.parametrize("user", ["alice", "foo.bar", "a@example.org", "o'neill", "two words", "-x", 'a"b', "josé"])
@pytest.mark.parametrize("server", ["", "gpu1"])
def test_openssh_understands_command_and_configuration(tmp_path: Path, user: str, server: str) -> None:
    target = workspace(user, server)
    ssh = instructions(target, host="hub.example.org", port=2222, host_key=None)
    words = shlex.split(ssh.command)
    assert words[:3] == ["ssh", "-p", "2222"]
    assert words[-1] == f"{target.address}@hub.example.org"
    config = tmp_path / "config"
    config.write_text(f"{ssh.config}\n")
    shown = subprocess.run(["ssh", "-G", "-F", config, ssh.alias], check=True, capture_output=True, text=True).stdout
    for expected in (f"user {target.address}", "hostname hub.example.org", "port 2222"):
        assert expected in shown.splitlines()


def test_the_usual_port_is_not_said() -> None:
    assert (
        instructions(workspace(), host="hub.example.org", port=22, host_key=None).command == "ssh alice@hub.example.org"
    )


def test_the_host_key_is_shown_as_openssh_does(tmp_path: Path) -> None:
    file = tmp_path / "key.pub"
    file.write_text(HOST_KEY)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", file], check=True, capture_output=True, text=True).stdout
    ssh = instructions(workspace(), host="127.0.0.1", port=2222, host_key=HOST_KEY)
    assert ssh.fingerprint == shown.split()[1]
    assert ssh.known_hosts == "[127.0.0.1]:2222 " + HOST_KEY.removesuffix(" gateway")
    assert instructions(workspace(), host="h", port=22, host_key="nonsense").fingerprint is None


def test_a_login_that_only_some_clients_take_as_it_is_stands_in_no_configuration() -> None:
    for user in ("${HOME}", "50%h"):
        ssh = instructions(workspace(user), host="h", port=22, host_key=None)
        assert ssh.config is None
        assert shlex.split(ssh.command)[-1] == f"{user}@h"
