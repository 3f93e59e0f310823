"""Which names a new workspace can't have although JupyterHub allows them."""

from jupyterhub.handlers import BaseHandler
from jupyterhub.user import User
from tornado import web

RESERVED = frozenset({"tools", "shared"})
"""What stands below a default workspace's own address."""

WHY_RESERVED = "This name is part of the addresses of every default workspace: choose another one."


class CheckedNames(BaseHandler):
    """Mixed into every handler that makes workspaces."""

    async def _check_named_server_request(
        self, user: User, server_name: str, display_name: str, check_limit: bool = True
    ) -> None:
        if server_name in RESERVED and server_name not in user.orm_spawners:
            raise web.HTTPError(400, WHY_RESERVED)
        await super()._check_named_server_request(user, server_name, display_name, check_limit)
