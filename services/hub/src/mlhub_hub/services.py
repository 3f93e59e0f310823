"""The services that call the hub's API, each with the least it needs, and the roles behind them."""

from typing import Any

from jupyterhub import orm
from jupyterhub.roles import grant_role
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.orm import Session

from mlhub_hub.settings import API_TOKEN_LENGTH, HubSettings

AUTOMATION, CLEANUP, SSH_GATEWAY, PROXY = "automation", "cleanup-service", "ssh-gateway", "proxy"

RUN_CLEANUP = "custom:cleanup:run"
"""The custom scope of those who may run clean-ups."""

CLEANUP_ADMINS = "cleanup-admins"
"""The role of every admin: JupyterHub's own admin role can't be given a custom scope."""

CUSTOM_SCOPES = {RUN_CLEANUP: {"description": "Run clean-ups and see their reports"}}

_ACCESS_CLEANUP = f"access:services!service={CLEANUP}"

_ACCESS_PROXY = f"access:services!service={PROXY}"

EVERYBODYS_SCOPES = {_ACCESS_PROXY}
"""What users may beside JupyterHub's own: show the proxy who they are, which then asks whether they may enter."""

_SCOPES = {
    CLEANUP: ["list:users", "read:servers", "delete:servers", "read:users:activity"],
    # It knows people by their keys, asks whether they may enter, and starts what is stopped.
    SSH_GATEWAY: ["read:users", "read:users:shares", "read:servers", "start:servers", "users:activity"],
}


def services(settings: HubSettings) -> list[dict[str, Any]]:
    """JupyterHub's list of services; one without a token does not exist."""
    found: list[dict[str, Any]] = []
    if settings.api_token is not None:
        found.append({"name": AUTOMATION, "api_token": _value(settings.api_token)})
    if settings.cleanup_hub_api_token is not None:
        found.append(
            {
                "name": CLEANUP,
                "url": settings.cleanup_url,
                "api_token": _value(settings.cleanup_hub_api_token),
                "oauth_no_confirm": True,
                "oauth_client_allowed_scopes": [RUN_CLEANUP, _ACCESS_CLEANUP],
            }
        )
    if settings.ssh_gateway_hub_api_token is not None:
        found.append({"name": SSH_GATEWAY, "api_token": _value(settings.ssh_gateway_hub_api_token)})
    if settings.proxy_hub_api_token is not None:
        found.append(
            {
                "name": PROXY,
                "api_token": _value(settings.proxy_hub_api_token),
                "oauth_no_confirm": True,
                "oauth_redirect_uri": "/hub-tools/oauth_callback",
                # It asks for one workspace at a time.
                "oauth_client_allowed_scopes": ["access:servers", _ACCESS_PROXY],
            }
        )
    return found


def tokens_are_strong(settings: HubSettings) -> bool:
    """Whether no token in the configuration needs many rounds of hashing: all are long, and none is a user's own."""
    are_long = all(len(service["api_token"]) >= API_TOKEN_LENGTH for service in services(settings))
    return are_long and settings.user_config is None


def roles(settings: HubSettings) -> list[dict[str, Any]]:
    """The roles of those services."""
    names = [service["name"] for service in services(settings)]
    found: list[dict[str, Any]] = [
        {"name": name, "description": f"What {name} needs", "scopes": _SCOPES[name], "services": [name]}
        for name in names
        if name in _SCOPES
    ]
    if CLEANUP in names:
        found.append(
            {
                "name": CLEANUP_ADMINS,
                "description": "May run clean-ups: every admin",
                "scopes": [RUN_CLEANUP, _ACCESS_CLEANUP],
            }
        )
    if AUTOMATION in names:
        found.append(
            {
                "name": AUTOMATION,
                "description": "What JupyterHub's admin role has not",
                "scopes": [RUN_CLEANUP],
                "services": [AUTOMATION],
            }
        )
    return found


def is_ssh_gateway(requester: Any) -> bool:
    """Whether it is the SSH gateway that asks."""
    return isinstance(requester, orm.Service) and str(requester.name) == SSH_GATEWAY


def make_automation_an_admin(session: Session) -> None:
    """Give the service of the API token the whole admin role.

    Not by configuration: a service named in the admin role there takes that role, at each start, from every admin who
    is not named there too.
    """
    service = orm.Service.find(session, AUTOMATION)
    if service is not None:
        service.admin = True
        grant_role(session, service, orm.Role.find(session, "admin"))


def give_admins_the_cleanup(session: Session) -> None:
    """Keep the role of the clean-up in step with who is an admin, now and from now on."""
    role = orm.Role.find(session, CLEANUP_ADMINS)
    if role is None:
        return
    for user in session.query(orm.User):
        _follow_admin(role, user)
    session.commit()

    def on_flush(session: Session, _context: Any, _instances: Any) -> None:
        for changed in [*session.new, *session.dirty]:
            if isinstance(changed, orm.User):
                _follow_admin(role, changed)

    event.listen(session, "before_flush", on_flush)


def _follow_admin(role: orm.Role, user: orm.User) -> None:
    if user.admin and role not in user.roles:
        user.roles.append(role)
    elif not user.admin and role in user.roles:
        user.roles.remove(role)


def _value(secret: SecretStr) -> str:
    return secret.get_secret_value()
