"""The API tokens that workspaces are given at their start."""

from typing import Any

from jupyterhub import orm
from jupyterhub.user import User
from jupyterhub.utils import url_escape_path, url_path_join
from sqlalchemy import inspect


def revoke_token_of(user: User, server_name: str) -> None:
    """Revoke what a workspace that has stopped was given.

    JupyterHub does so only as long as it lives: a hub that has adopted a workspace knows its token no more, and would
    leave it valid for ever.
    """
    note = f"Server at {url_path_join(user.base_url, url_escape_path(server_name), '/')}"
    orm_user: Any = user.orm_user
    session = inspect(orm_user).session
    tokens = session.query(orm.APIToken).filter_by(user_id=orm_user.id, note=note).all()
    for token in tokens:
        session.delete(token)
    if tokens:
        session.commit()
