"""The one place where the launcher looks at its environment."""

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class StandaloneSettings(BaseSettings):
    """What can only be set by environment; all else are options of `mlhub up`."""

    model_config = SettingsConfigDict(env_prefix="MLHUB_STANDALONE_", extra="ignore")

    nats_server: str | None = None
    """Path of the nats-server to run. None: the one on PATH if it is new enough, else the installed wheel's."""

    stop_within: float = 30
    """Seconds that workspaces get to stop before what is left of them is killed."""

    ready_within: float = 120
    """Seconds until `up` says what is still missing; it goes on trying."""

    image_of: str = Field(default="", validation_alias="MLHUB_SERVICE")
    """Set in images alone: the service that one is of."""

    data_dir: Path | None = None
    """Where the instance keeps all it has. None: `/data` in a container, `.mlhub` elsewhere."""

    @property
    def in_container(self) -> bool:
        """All of it is one container. Other defaults, and workspaces outlive its end."""
        return self.image_of == "standalone"


def user_environment() -> dict[str, str]:
    """The environment the launcher was started with."""
    return dict(os.environ)
