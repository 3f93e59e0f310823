"""Takes in the users of another deployment: `python -m mlhub_hub.arrivals`, while the hub is down.

Reads `Arrivals` from its input and writes `Receptions` to its output. Whatever is here already is left as it is, so
that it may be run again; roles are given out when the hub starts.
"""

import logging
import sys
from datetime import datetime

from jupyterhub import dbutil, orm
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mlhub_hub.auth import accounts, names
from mlhub_hub.auth.tables import Account, Approval, create_tables
from mlhub_hub.database import use_wal
from mlhub_hub.settings import HubSettings
from mlhub_shared.contracts.arrivals import Arrival, Arrivals, ArrivingServer, Reception, Receptions
from mlhub_shared.contracts.options import validate
from mlhub_shared.contracts.policy import OptionsError, Policy
from mlhub_shared.runtime import configuration
from mlhub_shared.runtime.clock import utc_now


def receive(db: Session, arrivals: Arrivals, *, policy: Policy, first_admin: str, now: datetime) -> Receptions:
    """Take in everybody who may have his name here, one transaction each."""
    receptions = []
    for arrival in arrivals.arrivals:
        receptions.append(_Reception(db, arrival, policy, now).receive(first_admin))
        db.commit()
    return Receptions(receptions=tuple(receptions))


class _Reception:
    """One arrival, and what is to be told of it."""

    def __init__(self, db: Session, arrival: Arrival, policy: Policy, now: datetime) -> None:
        self._db, self._arrival, self._policy, self._now = db, arrival, policy, now
        self._taken: list[str] = []
        self._kept: list[str] = []
        self._remarks: list[str] = []

    def receive(self, first_admin: str) -> Reception:
        arrival = self._arrival
        if (refused := self._why_refused(first_admin)) is not None:
            self._remarks.append(refused)
        else:
            if arrival.password_hash is not None:
                self._receive_account(arrival.password_hash)
            if arrival.is_user:
                self._receive_user()
        return Reception(name=arrival.name, taken=self._taken, kept=self._kept, remarks=self._remarks)

    def _why_refused(self, first_admin: str) -> str | None:
        arrival = self._arrival
        if names.normalise(arrival.name) != arrival.name or (why := names.why_refused(arrival.name)):
            return f"nobody can have this name here. {why if arrival.name else ''}".strip()
        if arrival.name == first_admin and arrival.password_hash is not None and not arrival.is_approved:
            return "this is the first admin's name, and the account of it was never approved"
        return None

    def _receive_account(self, password_hash: str) -> None:
        arrival = self._arrival
        if accounts.find(self._db, arrival.name) is not None:
            self._kept.append("account")
            return
        self._db.add(
            Account(
                name=arrival.name,
                password_hash=password_hash,
                approval=Approval.APPROVED if arrival.is_approved else Approval.PENDING,
                created_at=arrival.created_at or self._now,
                decided_at=self._now if arrival.is_approved else None,
                decided_by=None,
            )
        )
        self._taken.append("account" if arrival.is_approved else "account, which waits for approval")

    def _receive_user(self) -> None:
        arrival = self._arrival
        user = orm.User.find(self._db, arrival.name)
        if user is None:
            user = orm.User(name=arrival.name, admin=arrival.is_admin)
            self._db.add(user)
            self._taken.append("user, an admin" if arrival.is_admin else "user")
        else:
            self._kept.append("user")
            if arrival.is_admin and not user.admin:
                self._remarks.append("was an admin there, and is none here")
        for server in arrival.servers:
            self._receive_server(user, server)

    def _receive_server(self, user: orm.User, server: ArrivingServer) -> None:
        title = f"workspace {server.name}" if server.name else "default workspace"
        if server.name in user.orm_spawners:
            self._kept.append(title)
            return
        self._db.add(orm.Spawner(user=user, name=server.name, state={}, user_options=server.user_options))
        self._taken.append(title)
        try:
            validate(server.user_options, self._policy)
        except OptionsError as error:
            self._remarks.append(f"{title}: {error}")


def main() -> None:
    """Take in who comes by the input; an exit code of its own for wrong settings."""
    settings = configuration.load(HubSettings)
    try:
        arrivals = Arrivals.model_validate_json(sys.stdin.read())
    except ValidationError as error:
        # Never the values: there are hashes among them.
        sys.exit("; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors(include_input=False)))
    with _open(settings) as db:
        receptions = receive(
            db,
            arrivals,
            policy=settings.policy_of_backend(),
            first_admin=names.normalise(settings.admin_name),
            now=utc_now(),
        )
    print(receptions.model_dump_json())


def _open(settings: HubSettings) -> Session:
    """The hub's database, made as the hub itself makes it."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    use_wal()
    url = settings.database()
    if settings.upgrades_database:
        dbutil.upgrade_if_needed(url, log=logging.getLogger(__name__))
    db: Session = orm.new_session_factory(url)()
    engine = db.get_bind()
    assert isinstance(engine, Engine)  # noqa: S101
    create_tables(engine)
    return db


if __name__ == "__main__":
    main()
