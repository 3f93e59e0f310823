"""What follows, in the same transaction, when JupyterHub removes or renames a user, whichever authenticator is used."""

from typing import Any

from jupyterhub import orm
from sqlalchemy import Connection, delete, event, insert, inspect, update
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.attributes import History

from mlhub_hub.auth.tables import Account, DeletedUser, SshKeyRow, SshSetup
from mlhub_hub.requester import asked_by
from mlhub_shared.contracts.message import new_id
from mlhub_shared.runtime.clock import utc_now


def follow_users() -> None:
    """From now on, accounts and keys go and move with their users, and a deletion is noted; safe to repeat."""
    for name, listener in (("after_delete", _removed), ("after_update", _changed)):
        if not event.contains(orm.User, name, listener):
            event.listen(orm.User, name, listener)


def _removed(mapper: Mapper[Any], connection: Connection, user: orm.User) -> None:
    connection.execute(delete(Account).where(Account.name == user.name))
    connection.execute(delete(SshKeyRow).where(SshKeyRow.user == user.name))
    connection.execute(delete(SshSetup).where(SshSetup.user == user.name))
    # The files go by this word, so that only somebody's request may give it: never a pattern of names that was changed.
    if (by := asked_by()) is not None:
        row = {"id": new_id(), "user": user.name, "requester": by, "deleted_at": utc_now()}
        connection.execute(insert(DeletedUser).values(row))


def _changed(mapper: Mapper[Any], connection: Connection, user: orm.User) -> None:
    history: History = inspect(user).attrs.name.history
    if not (history.deleted and history.added):
        return
    old, new = history.deleted[0], history.added[0]
    # Nobody has this name, or JupyterHub would have refused: an account under it has never come in.
    connection.execute(delete(Account).where(Account.name == new))
    connection.execute(update(Account).where(Account.name == old).values(name=new))
    connection.execute(update(SshKeyRow).where(SshKeyRow.user == old).values(user=new))
    connection.execute(delete(SshSetup).where(SshSetup.user == old))
