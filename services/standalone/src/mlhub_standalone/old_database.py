"""The database of the first ML Hub, JupyterHub 1.x with accounts of its own: copied, and never written to."""

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlhub_standalone.errors import LauncherError

FILE = "jupyterhub.sqlite"
"""In the folder of data."""

_BESIDE = ("", "-journal", "-wal")
"""What belongs to a database that was not closed."""


@dataclass(frozen=True)
class OldAccount:
    """Somebody who signed up, under the name he typed."""

    name: str
    password_hash: str = field(repr=False)
    is_authorized: bool
    has_second_factor: bool = False


@dataclass(frozen=True)
class OldServer:
    """A workspace, running or not; the default one has no name."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OldUser:
    """Somebody who came in, under the name that all his things have."""

    name: str
    is_admin: bool = False
    created_at: datetime | None = None
    servers: tuple[OldServer, ...] = ()


@dataclass(frozen=True)
class OldHub:
    """All that is taken over of a database."""

    users: tuple[OldUser, ...] = ()
    accounts: tuple[OldAccount, ...] = ()


def find(place: Path) -> Path | None:
    """The database in a folder of data, or this very file; None if there is none."""
    file = place / FILE if place.is_dir() else place
    return file if file.is_file() else None


def read(file: Path) -> OldHub:
    """Read it; LauncherError if it is not one of these."""
    try:
        with _copied(file) as copy, closing(sqlite3.connect(copy)) as connection:
            connection.row_factory = sqlite3.Row
            columns = _columns(connection)
            if not {"users", "spawners"} <= columns.keys():
                raise LauncherError(f"{file} is no database of a JupyterHub: it has no users")
            return OldHub(users=_users(connection, columns), accounts=_accounts(connection, columns))
    except (sqlite3.Error, OSError) as error:
        raise LauncherError(f"{file} can't be read: {error}") from None


@contextmanager
def _copied(file: Path) -> Iterator[Path]:
    """A copy that SQLite may bring in order, which it does even where it only reads."""
    with tempfile.TemporaryDirectory(prefix="mlhub-move-in-") as folder:
        for ending in _BESIDE:
            source = file.with_name(file.name + ending)
            if source.is_file():
                shutil.copyfile(source, Path(folder) / source.name)
        yield Path(folder) / file.name


def _columns(connection: sqlite3.Connection) -> dict[str, set[str]]:
    tables = [row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    known = {"users", "spawners", "users_info"} & set(tables)
    return {table: {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")} for table in known}


def _users(connection: sqlite3.Connection, columns: dict[str, set[str]]) -> tuple[OldUser, ...]:
    servers: dict[int, list[OldServer]] = {}
    for row in connection.execute("SELECT * FROM spawners ORDER BY id"):
        servers.setdefault(row["user_id"], []).append(OldServer(row["name"] or "", _options(row)))
    return tuple(
        OldUser(
            name=row["name"],
            is_admin=bool(row["admin"]),
            created_at=_time(row["created"]) if "created" in columns["users"] else None,
            servers=tuple(servers.get(row["id"], [])),
        )
        for row in connection.execute("SELECT * FROM users ORDER BY id")
        if row["name"]
    )


def _accounts(connection: sqlite3.Connection, columns: dict[str, set[str]]) -> tuple[OldAccount, ...]:
    if "users_info" not in columns:
        # Another authenticator: who somebody is, was said elsewhere.
        return ()
    second_factor = "has_2fa" in columns["users_info"]
    return tuple(
        OldAccount(
            name=row["username"],
            password_hash=_text(row["password"]),
            is_authorized=bool(row["is_authorized"]),
            has_second_factor=bool(row["has_2fa"]) if second_factor else False,
        )
        for row in connection.execute("SELECT * FROM users_info ORDER BY id")
    )


def _options(row: sqlite3.Row) -> dict[str, Any]:
    """Those of the last start: in their own column, or in the state that the spawner kept."""
    own = _object(row["user_options"]) if "user_options" in row.keys() else {}  # noqa: SIM118  (rows iterate values)
    saved = _object(row["state"]).get("saved_user_options")
    return own or (saved if isinstance(saved, dict) else {})


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: bytes | str | None) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value or ""


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None
    except ValueError:
        return None
