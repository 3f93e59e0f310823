"""The data of a first ML Hub, as its JupyterHub 1.0 and its sign-up left them."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import bcrypt

SCHEMA = """
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, PRIMARY KEY (version_num));
INSERT INTO alembic_version VALUES ('4dc2d5a8c53c');
CREATE TABLE servers (id INTEGER NOT NULL, proto VARCHAR(15), ip VARCHAR(255), port INTEGER, base_url VARCHAR(255),
    cookie_name VARCHAR(255), PRIMARY KEY (id));
CREATE TABLE users (id INTEGER NOT NULL, name VARCHAR(255), admin BOOLEAN, created DATETIME, last_activity DATETIME,
    cookie_id VARCHAR(255) NOT NULL, state TEXT, encrypted_auth_state BLOB, PRIMARY KEY (id), CHECK (admin IN (0, 1)),
    UNIQUE (cookie_id), UNIQUE (name));
CREATE TABLE spawners (id INTEGER NOT NULL, user_id INTEGER, server_id INTEGER, state TEXT, name VARCHAR(255),
    started DATETIME, last_activity DATETIME, user_options TEXT, PRIMARY KEY (id),
    FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE,
    FOREIGN KEY(server_id) REFERENCES servers (id) ON DELETE SET NULL);
CREATE TABLE users_info (id INTEGER NOT NULL, username VARCHAR NOT NULL, password BLOB NOT NULL, is_authorized BOOLEAN,
    email VARCHAR, has_2fa BOOLEAN, otp_secret VARCHAR(16), PRIMARY KEY (id), CHECK (is_authorized IN (0, 1)),
    CHECK (has_2fa IN (0, 1)));
"""

WORKSPACE = {
    "image": "mltooling/ml-workspace:0.8.7", "cpu_limit": "2", "mem_limit": "4", "is_mount_volume": "on",
    "days_to_live": "", "env": {"STAGE": "test", "DB_PASSWORD": "hunter2"}, "shm_size": "512m", "gpus": "",
}  # fmt: skip
"""What the form kept."""


class OldData:
    """A folder of data to fill."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.file = folder, folder / "jupyterhub.sqlite"
        with closing(sqlite3.connect(self.file)) as connection:
            connection.executescript(SCHEMA)
        (folder / "jupyterhub_cookie_secret").write_text("0" * 64)

    def sign_up(self, name: str, password: str, *, authorized: bool = True, second_factor: bool = False) -> None:
        """Somebody has asked for an account, under the name he typed."""
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4))
        self._insert(
            "users_info", username=name, password=hashed, is_authorized=authorized, has_2fa=second_factor,
            otp_secret="ABCDEFGHIJKLMNOP",
        )  # fmt: skip

    def come_in(self, name: str, *, admin: bool = False) -> None:
        """He has come in, and the hub has a user of the name that it makes of his."""
        self._insert(
            "users", name=name, admin=admin, cookie_id=f"cookie-{name}", created="2019-11-20 10:11:12.131415",
            last_activity="2019-11-21 10:11:12",
        )  # fmt: skip
        self.start(name, "", {})

    def start(self, user: str, server: str, options: dict[str, Any], **state: Any) -> None:
        """A workspace of his has been started once."""
        with closing(sqlite3.connect(self.file)) as connection:
            (user_id,) = connection.execute("SELECT id FROM users WHERE name = ?", (user,)).fetchone()
        self._insert(
            "spawners", user_id=user_id, name=server, state=json.dumps({"object_id": "a1b2c3", **state}),
            user_options=json.dumps(options), last_activity="2019-11-21 10:11:12",
        )  # fmt: skip

    def _insert(self, table: str, **values: Any) -> None:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute(
                f"INSERT INTO {table} ({names}) VALUES ({marks})",  # noqa: S608  (names of this file)
                tuple(values.values()),
            )


def small_team(folder: Path) -> OldData:
    """An admin, two users with workspaces, somebody who waits."""
    old = OldData(folder)
    old.sign_up("admin", "the-admins-password")
    old.come_in("admin", admin=True)
    old.sign_up("Foo.Bar", "foo-bars-password")
    old.come_in("foo0bar")
    old.start("foo0bar", "gpu1", WORKSPACE)
    old.sign_up("alice", "alices-password", second_factor=True)
    old.come_in("alice")
    old.start("alice", "my-lab", {}, saved_user_options={**WORKSPACE, "env": {}, "gpus": "0, 2", "shm_size": 1048576})
    old.sign_up("bob", "bobs-password", authorized=False)
    return old
