"""Settings of the clean-up."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from mlhub_shared.contracts.timers import WARN_BEFORE
from mlhub_shared.runtime.settings import CommonSettings


def _with_slashes(path: str) -> str:
    return f"/{path.strip('/')}/" if path.strip("/") else "/"


def _number_is_seconds(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Duration = Annotated[timedelta, BeforeValidator(_number_is_seconds)]
Path = Annotated[str, AfterValidator(_with_slashes)]


class CleanupSettings(CommonSettings):
    """`MLHUB_CLEANUP_<NAME>`, and what all services share."""

    model_config = SettingsConfigDict(env_prefix="MLHUB_CLEANUP_", extra="ignore", populate_by_name=True)

    http_port: int = Field(default=8084, ge=0, lt=65536)
    """The hub sends `/services/cleanup-service/` here. 0: any free port, which is logged."""

    hub_api_url: str = "http://127.0.0.1:8081/hub/api"
    """The hub's REST API, as this service reaches it."""

    hub_api_token: SecretStr | None = None
    """Of the hub's service `cleanup-service`. None: no sweep over users, and the API refuses everybody."""

    hub_prefix: Path = "/hub/"
    """Where browsers find the hub's pages."""

    public_url: str | None = None
    """What people type: tells whether cookies are for https only. None: each request tells."""

    service_prefix: Path = "/services/cleanup-service/"
    """Where browsers find this service; the proxy does not strip it."""

    warn_before: Duration = Field(default=WARN_BEFORE, ge=timedelta(0))
    """How long before its end a workspace is announced to expire, but not before its last quarter.

    Seconds, or ISO 8601.
    """

    interval_seconds: float = Field(
        default=3600,
        validation_alias=AliasChoices("MLHUB_CLEANUP_INTERVAL_SECONDS", "CLEANUP_INTERVAL_SECONDS"),
    )
    """Between two sweeps for what the events missed. -1: no sweeps."""

    keep_volumes_days: float = Field(default=0, ge=0, validation_alias="MLHUB_KEEP_VOLUMES_DAYS")
    """How long the workers keep the volume of a deleted workspace, for the page to say. 0: it goes at once."""

    worker_lost_after: Duration = Field(default=timedelta(minutes=2), gt=timedelta(0))
    """How long a worker's lease is gone before that is an event, longer than a restart; seconds, or ISO 8601."""

    @property
    def interval(self) -> timedelta | None:
        """Between two sweeps; None: no sweeps."""
        return timedelta(seconds=self.interval_seconds) if self.interval_seconds > 0 else None

    def model_post_init(self, _: Any) -> None:
        """Keep addresses in one form, and take an empty token for none."""
        if self.hub_api_token is not None and not self.hub_api_token.get_secret_value():
            self.hub_api_token = None
        self.hub_api_url = self.hub_api_url.rstrip("/")
        self.public_url = self.public_url.rstrip("/") if self.public_url else None
