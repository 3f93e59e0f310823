"""Where this proxy stands: the addresses behind names that an engine of containers gives it."""

import socket
from pathlib import Path

from mlhub_proxy.settings import ProxySettings
from mlhub_shared.runtime.hosts import OWN
from mlhub_shared.runtime.own_network import ROUTES, network_of


def placed(settings: ProxySettings, routes: Path = ROUTES) -> ProxySettings:
    """With the probe frontend's own network found, if it was asked for; OSError or ValueError if there is none.

    A name that stands for one leg of the proxy becomes its address, so that the frontend is on that leg alone.
    """
    if settings.internal_networks != OWN:
        return settings
    address = socket.gethostbyname(settings.probe_host)
    return settings.model_copy(update={"probe_host": address, "internal_networks": (network_of(address, routes),)})
