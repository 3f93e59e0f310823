"""How to come into a workspace over SSH: what the dialog shows."""

import shlex
from dataclasses import dataclass

from mlhub_hub.auth.ssh_keys import KeyRefused, parse
from mlhub_shared.contracts.identity import WorkspaceId

_PORT = 22

_EXPANDED = set("%$")
"""What OpenSSH from 10 on expands in a configured user name, and OpenSSH before it does not."""


@dataclass(frozen=True)
class SshInstructions:
    """Lines to copy."""

    command: str
    config: str | None
    """For `~/.ssh/config`. None for a login that newer clients would read as one of their variables."""
    alias: str
    """The host's name in that configuration."""
    fingerprint: str | None
    """Of the gateway's host key."""
    known_hosts: str | None


def instructions(workspace: WorkspaceId, *, host: str, port: int, host_key: str | None) -> SshInstructions:
    """The command and the configuration for one workspace."""
    where = f"-p {port} " if port != _PORT else ""
    login = workspace.address
    alias = workspace.name
    lines = [f"Host {alias}", f"    HostName {host}", f"    Port {port}", f"    User {_quoted(login)}"]
    fingerprint, known = _host_key(host, port, host_key)
    return SshInstructions(
        command=f"ssh {where}{shlex.quote(f'{login}@{host}')}",
        config=None if set(login) & _EXPANDED else "\n".join(lines),
        alias=alias,
        fingerprint=fingerprint,
        known_hosts=known,
    )


def _quoted(login: str) -> str:
    """As the configuration file wants what is not plain."""
    if not set(login) & set(" #\"'\\"):
        return login
    escaped = login.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _host_key(host: str, port: int, host_key: str | None) -> tuple[str | None, str | None]:
    if host_key is None:
        return None, None
    try:
        key = parse(host_key)
    except KeyRefused:
        return None, None
    name = f"[{host}]:{port}" if port != _PORT else host
    return key.fingerprint, f"{name} {key.line}"
