"""What follows, in the same transaction, when JupyterHub removes or renames a user, whichever authenticator is used."""

from typing import Any

from jupyterhub import orm
from sqlalchemy import Connection, delete, event, inspect, update
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.attributes import History

from mlhub_hub.auth.tables import Account, SshKeyRow


def follow_users() -> None:
    """From now on, accounts and keys go and move with their users; safe to repeat."""
    for name, listener in (("after_delete", _removed), ("after_update", _changed)):
        if not event.contains(orm.User, name, listener):
            event.listen(orm.User, name, listener)


def _removed(mapper: Mapper[Any], connection: Connection, user: orm.User) -> None:
    connection.execute(delete(Account).where(Account.name == user.name))
    connection.execute(delete(SshKeyRow).where(SshKeyRow.user == user.name))


def _changed(mapper: Mapper[Any], connection: Connection, user: orm.User) -> None:
    history: History = inspect(user).attrs.name.history
    if not (history.deleted and history.added):
        return
    old, new = history.deleted[0], history.added[0]
    # Nobody has this name, or JupyterHub would have refused: an account under it has never come in.
    connection.execute(delete(Account).where(Account.name == new))
    connection.execute(update(Account).where(Account.name == old).values(name=new))
    connection.execute(update(SshKeyRow).where(SshKeyRow.user == old).values(user=new))
