"""Settings that all services share; each service adds its own in its settings.py."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from mlhub_shared.bus import BusSettings
from mlhub_shared.contracts.identity import HubName
from mlhub_shared.contracts.policy import LEAST_MEM, Policy, Profile
from mlhub_shared.contracts.sizes import Size, size_in_words
from mlhub_shared.runtime.profiles import DEFAULT_IMAGE, default_profiles, read_profiles


def _enough(size: int | None) -> int | None:
    if size is not None and size < LEAST_MEM:
        raise ValueError(f"must be at least {size_in_words(LEAST_MEM)}: no workspace runs with less")
    return size


def _copies(count: int) -> int:
    if count not in (1, 3, 5):
        raise ValueError("must be 1, 3 or 5: more than half of the copies must agree")
    return count


Memory = Annotated[Size, AfterValidator(_enough)]
"""As much as a workspace needs at least; None for no limit."""


class CommonSettings(BaseSettings):
    """From the environment, or from files of the same name (any case) in the folder `MLHUB_SECRETS_DIR`.

    The fields here are `MLHUB_<NAME>` for every service; a service's own are `MLHUB_<SERVICE>_<NAME>`.
    """

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, case_sensitive=False)

    hub_name: HubName = Field(default="mlhub", validation_alias=AliasChoices("MLHUB_HUB_NAME", "HUB_NAME"))
    """Begins every name on the bus and in a container engine, so that deployments can share both."""

    nats_url: str = Field(default="nats://127.0.0.1:4222", validation_alias="MLHUB_NATS_URL")
    """One or more servers, separated by commas."""

    nats_user: str | None = Field(default=None, validation_alias="MLHUB_NATS_USER")
    """None: no login, for a server that asks for none."""

    nats_password: SecretStr | None = Field(default=None, validation_alias="MLHUB_NATS_PASSWORD")
    """None: no login."""

    nats_replicas: Annotated[int, AfterValidator(_copies)] = Field(default=1, validation_alias="MLHUB_NATS_REPLICAS")
    """Servers of a cluster that keep a copy of everything on the bus: 1, 3 or 5; the same for all services."""

    internal_token: SecretStr | None = Field(default=None, validation_alias="MLHUB_INTERNAL_TOKEN")
    """Bearer token for `/metrics` and the services' own APIs. None: those refuse everybody."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", validation_alias="MLHUB_LOG_LEVEL")

    log_format: Literal["auto", "console", "json"] = Field(default="auto", validation_alias="MLHUB_LOG_FORMAT")
    """auto: for people on a terminal, JSON elsewhere."""

    http_host: str = "127.0.0.1"
    """Where `/live`, `/ready`, `/metrics` and the service's API listen."""

    http_port: int = Field(default=0, ge=0, lt=65536)
    """0: any free port, which is logged."""

    def bus(self, service: str) -> BusSettings:
        """How this service connects to the bus."""
        return BusSettings(
            url=self.nats_url,
            hub=self.hub_name,
            service=service,
            user=self.nats_user,
            password=self.nats_password.get_secret_value() if self.nats_password else None,
            replicas=self.nats_replicas,
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then files: never a `.env` that happens to lie about."""
        folder = secrets_dir()
        files = SecretsSettingsSource(settings_cls, secrets_dir=folder) if folder else file_secret_settings
        return init_settings, env_settings, files


class PolicySettings(BaseSettings):
    """What anybody may ask for; the hub and the workers read the same variables, `MLHUB_<NAME>`."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, case_sensitive=False)

    max_cpu: float | None = Field(default=None, gt=0, validation_alias="MLHUB_MAX_CPU")
    """Cores of one workspace. None: no maximum."""
    max_mem: Memory = Field(default=None, validation_alias="MLHUB_MAX_MEM")
    """Of one workspace, such as `8G`. None: no maximum."""
    max_shm: Size = Field(default=None, validation_alias="MLHUB_MAX_SHM")
    """Of one workspace, such as `1G`. None: no maximum."""
    max_days_to_live: float | None = Field(default=None, gt=0, validation_alias="MLHUB_MAX_DAYS_TO_LIVE")
    """None: no maximum, and workspaces may live for ever."""
    default_cpu: float | None = Field(default=None, gt=0, validation_alias="MLHUB_DEFAULT_CPU")
    """Cores of those who ask for nothing. None: the maximum."""
    default_mem: Memory = Field(default=None, validation_alias="MLHUB_DEFAULT_MEM")
    """Of those who ask for nothing. None: the maximum."""
    default_days_to_live: float = Field(default=0, ge=0, validation_alias="MLHUB_DEFAULT_DAYS_TO_LIVE")
    """Of those who ask for nothing. 0: the maximum."""

    max_gpus: int | None = Field(default=None, ge=0, validation_alias="MLHUB_MAX_GPUS")
    """Of one workspace. None: no maximum."""
    user_max_workspaces: int | None = Field(default=None, gt=0, validation_alias="MLHUB_USER_MAX_WORKSPACES")
    """Running at a time, of one user. None: no maximum."""
    user_max_cpu: float | None = Field(default=None, gt=0, validation_alias="MLHUB_USER_MAX_CPU")
    """Cores of all running workspaces of one user. None: no maximum."""
    user_max_mem: Memory = Field(default=None, validation_alias="MLHUB_USER_MAX_MEM")
    """Of all running workspaces of one user. None: no maximum."""
    user_max_gpus: int | None = Field(default=None, ge=0, validation_alias="MLHUB_USER_MAX_GPUS")
    """Of all running workspaces of one user. None: no maximum."""
    keep_volumes_days: float = Field(default=0, ge=0, validation_alias="MLHUB_KEEP_VOLUMES_DAYS")
    """How long the volume of a deleted workspace is kept. 0: it goes at once."""
    profiles_file: Path | None = Field(default=None, validation_alias="MLHUB_PROFILES_FILE")
    """YAML: the profiles to choose from, and the images allowed beside theirs. None: one profile, of our own image."""
    images: str = Field(default="", validation_alias="MLHUB_IMAGES")
    """Patterns of images that people may name themselves, separated by commas, beside the file's; `*` for any."""
    default_image: str = Field(default=DEFAULT_IMAGE, validation_alias="MLHUB_DEFAULT_IMAGE")
    """Of the one profile there is without a file."""
    default_workspace_port: int = Field(
        default=8888,
        gt=0,
        lt=65536,
        validation_alias=AliasChoices("MLHUB_DEFAULT_WORKSPACE_PORT", "DEFAULT_WORKSPACE_PORT"),
    )
    """Where that image's server listens."""

    def policy(self, *, images_allowed: bool, gpus_allowed: bool, gpus_counted: bool = False) -> Policy:
        """The policy, for a backend with or without images and GPUs; ValueError if the file of profiles is wrong."""
        profiles: tuple[Profile, ...] = ()
        images = tuple(pattern.strip() for pattern in self.images.split(",") if pattern.strip())
        if images_allowed and self.profiles_file is not None:
            profiles, more = read_profiles(self.profiles_file)
            images += more
        elif images_allowed:
            profiles = default_profiles(self.default_image, self.default_workspace_port)
        plain = (PolicySettings.model_fields.keys() & Policy.model_fields.keys()) - {"images"}
        return Policy(
            images_allowed=images_allowed,
            gpus_allowed=gpus_allowed,
            gpus_counted=gpus_counted,
            profiles=profiles,
            images=images,
            **{name: getattr(self, name) for name in plain},
        )


def secrets_dir() -> Path | None:
    """The folder of secret files; None where there is none."""
    folder = os.environ.get("MLHUB_SECRETS_DIR")
    return Path(folder) if folder and Path(folder).is_dir() else None
