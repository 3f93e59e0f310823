"""Settings of the hub, `MLHUB_HUB_<NAME>`."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from mlhub_shared.contracts.identity import Token
from mlhub_shared.contracts.policy import Policy
from mlhub_shared.runtime.settings import CommonSettings, PolicySettings

API_TOKEN_LENGTH = 32
"""Fewest characters of a token that holds every right."""


class Workspaces(StrEnum):
    """The three ways a team uses the hub."""

    SELF_SERVICE = "self-service"
    """Everybody makes as many workspaces as he likes."""
    HANDED_OUT = "handed-out"
    """Admins make workspaces; users start and stop what they were given."""
    ONE_EACH = "one-each"
    """One workspace for each user and no more."""


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"{url!r} must be an address such as http://127.0.0.1:8080, without a path")
    return url.rstrip("/")


def _hexadecimal(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", secret.get_secret_value()):
        raise ValueError("must be 64 hexadecimal digits")
    return secret


def _database(url: str) -> str:
    """With the driver that is there, where none is named."""
    if not re.match(r"[a-z0-9]+(\+[a-z0-9_]+)?://", url):
        raise ValueError("must be an address such as postgresql://user:password@host/database")
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)


Origin = Annotated[str, AfterValidator(_origin)]


class HubSettings(CommonSettings, PolicySettings):
    """The hub's own settings beside the common ones and the policy."""

    model_config = SettingsConfigDict(env_prefix="MLHUB_HUB_", extra="ignore", populate_by_name=True)

    listen_host: str = "127.0.0.1"
    """Where JupyterHub listens; only the proxy needs to reach it."""
    listen_port: int = Field(default=8081, gt=0, lt=65536)

    target_url: Origin = "http://127.0.0.1:8081"
    """How the proxy reaches the hub."""
    public_url: Origin = "http://127.0.0.1:8080"
    """What people type."""
    tools_domain: str = Field(default="", validation_alias="MLHUB_PROXY_TOOLS_DOMAIN")
    """Below it, the proxy shows every port of a workspace as a site of its own. Empty: it does not."""
    probe_url: Origin = "http://127.0.0.1:8003"
    """The proxy's probe frontend, through which JupyterHub looks whether a workspace answers."""
    workspace_api_url: Origin = "http://127.0.0.1:8002"
    """Where workspaces find the hub's API."""

    data_dir: Path = Path(".mlhub/hub")
    """The database and the cookie secret."""
    database_url: Annotated[str, AfterValidator(_database)] | None = None
    """SQLAlchemy's, or a plain `postgresql://`. None: SQLite in the data directory."""
    database_upgrade: bool = False
    """Bring the tables of such a database to this version's form at the start; its owner backs it up before.

    SQLite is backed up and brought there without being asked for; an empty database always gets its tables.
    """
    cookie_secret: Annotated[SecretStr, AfterValidator(_hexadecimal)] | None = None
    """Signs the cookies of logins: 32 bytes, as 64 hexadecimal digits. None: one is made in the data directory."""

    workspaces: Workspaces = Workspaces.SELF_SERVICE

    pool: Token = "default"
    """The pool of workers that runs the workspaces."""
    backend: Literal["process", "docker", "kubernetes"] = "process"
    """Of those workers: decides whether images and GPUs may be asked for."""

    ssh_host: str = "127.0.0.1"
    """Shown to people: where `ssh` connects to."""
    ssh_port: int = Field(default=2222, gt=0, lt=65536)
    ssh_host_key: str | None = None
    """The gateway's public host key, an OpenSSH line. None: not shown."""

    admin_name: str = "admin"
    """The first admin."""
    open_signup: bool = False
    """Let everybody who signs up in at once, without an administrator's approval."""
    admin_password: SecretStr | None = Field(default=None, validation_alias="MLHUB_ADMIN_PASSWORD")
    """Of the first admin. None: a one-time link to sign up is printed."""
    api_token: SecretStr | None = Field(default=None, validation_alias="MLHUB_API_TOKEN")
    """Has the whole admin role, for automation. None: there is none."""

    user_config: Path | None = None
    """A `jupyterhub_user_config.py`, loaded last, so that it wins."""

    cleanup_url: Origin = "http://127.0.0.1:8084"
    """Where the clean-up service listens."""
    cleanup_hub_api_token: SecretStr | None = Field(default=None, validation_alias="MLHUB_CLEANUP_HUB_API_TOKEN")
    """None: the clean-up service is not registered."""
    ssh_gateway_hub_api_token: SecretStr | None = Field(
        default=None, validation_alias="MLHUB_SSH_GATEWAY_HUB_API_TOKEN"
    )
    """None: the SSH gateway is not registered."""
    proxy_hub_api_token: SecretStr | None = Field(default=None, validation_alias="MLHUB_PROXY_HUB_API_TOKEN")
    """None: the proxy is not registered, and nobody is let through to the tools of a workspace."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.api_token is not None and len(self.api_token.get_secret_value()) < API_TOKEN_LENGTH:
            raise ValueError(
                f"MLHUB_API_TOKEN must have at least {API_TOKEN_LENGTH} characters: it holds every right of an admin"
            )
        if self.user_config is not None and not self.user_config.is_file():
            raise ValueError(f"MLHUB_HUB_USER_CONFIG: there is no file {self.user_config}")
        if self.backend == "kubernetes" and self.keep_volumes_days:
            raise ValueError(
                "MLHUB_KEEP_VOLUMES_DAYS: on Kubernetes files are kept by a storage class with reclaimPolicy: Retain; "
                "take the setting away, or people would be promised what nobody does"
            )
        try:
            self.policy_of_backend()
        except ValidationError as error:
            problems = (problem["msg"].removeprefix("Value error, ") for problem in error.errors(include_url=False))
            raise ValueError(f"MLHUB_PROFILES_FILE: {'; '.join(problems)}") from None
        return self

    def policy_of_backend(self) -> Policy:
        """What anybody may ask of this backend."""
        runs_images = self.backend != "process"
        counted = self.backend == "kubernetes"
        return self.policy(images_allowed=runs_images, gpus_allowed=runs_images, gpus_counted=counted)

    @property
    def self_url(self) -> str:
        """How the hub reaches itself."""
        everywhere = self.listen_host in {"", "0.0.0.0", "::"}  # noqa: S104  (compared, not bound)
        host = "127.0.0.1" if everywhere else self.listen_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.listen_port}"

    @property
    def upgrades_database(self) -> bool:
        """Whether tables of an earlier version are brought to this one's form at the start."""
        return self.database_url is None or self.database_upgrade

    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'jupyterhub.sqlite').absolute()}"
