"""Which variables the services read."""

from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from mlhub_cleanup.settings import CleanupSettings
from mlhub_hub.settings import HubSettings
from mlhub_proxy.settings import ProxySettings
from mlhub_shared.runtime.settings import CommonSettings
from mlhub_spawner_worker.settings import SpawnerWorkerSettings
from mlhub_ssh_gateway.settings import SshGatewaySettings

SERVICES: dict[str, type[CommonSettings]] = {
    "hub": HubSettings,
    "spawner-worker": SpawnerWorkerSettings,
    "cleanup": CleanupSettings,
    "ssh-gateway": SshGatewaySettings,
    "proxy": ProxySettings,
}


def known(settings: type[BaseSettings]) -> set[str]:
    """The variables that it reads."""
    names = set()
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        if alias is None:
            names.add(f"{settings.model_config.get('env_prefix', '')}{name}".upper())
        else:
            names |= {str(choice) for choice in (alias.choices if isinstance(alias, AliasChoices) else [alias])}
    return names
