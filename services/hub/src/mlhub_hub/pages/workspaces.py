"""The rows of a user's workspaces, from JupyterHub's database and the workers' records."""

from datetime import UTC, datetime
from typing import Any

from jupyterhub.spawner import SpawnException
from jupyterhub.user import User

from mlhub_hub.context import HubContext
from mlhub_hub.pages.rights import Rights
from mlhub_hub.pages.view import Row, Server, links_of, row_of
from mlhub_shared.contracts.options import validate
from mlhub_shared.contracts.policy import OptionsError
from mlhub_shared.contracts.workspace import WorkspaceSpec, queue_positions


def rows_of(context: HubContext, user: User, rights: Rights, *, hub_url: str, base_url: str) -> list[Row]:
    """The rows of a user, the default workspace first, then by name."""
    servers = [server_of(user, name) for name in sorted({"", *user.orm_spawners})]
    positions = queue_positions(context.workspaces.values())
    now = context.clock()
    rows = []
    for server in servers:
        key = context.workspace(user.name, server.name).name
        record = context.workspaces.value(key)
        if not server.name and not rights.make_default and record is None and not server.was_started:
            continue
        rows.append(
            row_of(
                record,
                server,
                key=key,
                links=links_of(server, hub_url=hub_url, base_url=base_url),
                rights=rights,
                policy=context.policy,
                now=now,
                spec=spec_to_come(context, user, server.name) if record is None or not record.phase.is_active else None,
                position=positions.get(key),
                is_unreachable=context.nodes.is_unreachable(record),
            )
        )
    return rows


def spec_to_come(context: HubContext, user: User, name: str) -> WorkspaceSpec | None:
    """What the next start of a workspace gives it; None where it would be refused."""
    orm_spawner: Any = user.orm_spawners.get(name)
    try:
        return validate((orm_spawner.user_options if orm_spawner else None) or {}, context.policy)
    except OptionsError:
        return None


def server_of(user: User, name: str) -> Server:
    """What JupyterHub knows of a workspace, without making anything."""
    orm_spawner: Any = user.orm_spawners.get(name)
    spawner: Any = user.spawners.get(name) if name in user.spawners else None
    if orm_spawner is None:
        return Server(user.name, name)
    return Server(
        user=user.name,
        name=name,
        failure=_failure(spawner) if spawner is not None else "",
        display_name=orm_spawner.display_name or "",
        pending=spawner.pending if spawner is not None else None,
        last_activity=_aware(orm_spawner.last_activity),
        was_started=orm_spawner.started is not None or orm_spawner.user_options is not None,
    )


def _failure(spawner: Any) -> str:
    error = spawner._failed
    if not isinstance(error, SpawnException) or error.reason == "stopped":
        return ""
    return str(error.message)


def _aware(when: datetime | None) -> datetime | None:
    return when.replace(tzinfo=UTC) if when is not None else None
