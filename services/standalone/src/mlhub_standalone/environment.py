"""What each service finds in its environment: little of the person's own, and where the other parts are."""

import sys
from collections.abc import Mapping
from pathlib import Path

from mlhub_standalone import https
from mlhub_standalone.credentials import NATS_USER, Credentials
from mlhub_standalone.data_dir import MARK
from mlhub_standalone.instance import Instance
from mlhub_standalone.ports import LOOPBACK

NODE = "local"
"""This machine on the bus. Not its name: a laptop changes that with the network, and workspaces belong to a node."""

USER_CONFIG = Path("/resources/jupyterhub_user_config.py")
"""Where the image of the first ML Hub looked for it."""

_KEPT = {"HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"}
_KEPT_PREFIXES = ("LC_", "SSL_CERT_", "MLHUB_")
_KEPT_SETTINGS = {"CLEANUP_INTERVAL_SECONDS", "DEFAULT_WORKSPACE_PORT", "REQUESTS_CA_BUNDLE"}

_BUS = "MLHUB_NATS_"
_OURS = (_BUS, "MLHUB_SECRETS_DIR", MARK)
"""Prefixes of what is never passed on: the bus of this instance is its own, and each service has its own secrets."""

_FOR_ONE = {
    "MLHUB_ADMIN_PASSWORD": {"hub"},
    "MLHUB_API_TOKEN": {"hub"},
    "MLHUB_HUB_DATABASE_URL": {"hub"},
    "MLHUB_CLEANUP_HUB_API_TOKEN": {"hub", "cleanup"},
    "MLHUB_SSH_GATEWAY_HUB_API_TOKEN": {"hub", "ssh-gateway"},
    "MLHUB_PROXY_HUB_API_TOKEN": {"hub", "proxy"},
}
"""Secrets the person may have set, with the services that need them."""


def environment_of(
    service: str, instance: Instance, credentials: Credentials, person: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of a service. What the person set on purpose wins over what is computed here."""
    kept = {name: value for name, value in person.items() if _is_kept(name, service)}
    kept["PATH"] = f"{Path(sys.executable).parent}:{kept.get('PATH', '/usr/bin:/bin')}"
    forced = {
        MARK: str(instance.data.root),
        "MLHUB_HUB_NAME": instance.hub_name,
        "MLHUB_PROXY_TLS": "on" if instance.tls else "off",
    }
    return computed(service, instance, credentials) | kept | forced


def remarks(instance: Instance, credentials: Credentials, person: Mapping[str, str]) -> list[str]:
    """What to tell of variables that are set where this launcher has values of its own."""
    ours = {name: value for service in _PARTS for name, value in computed(service, instance, credentials).items()}
    unused = [
        f"{name} is set, but not used: this launcher runs a bus of its own" for name in person if name.startswith(_BUS)
    ]
    taken = [
        f"{name} is taken from your environment"
        for name, value in ours.items()
        if not _is_ours(name) and person.get(name, value) != value
    ]
    return sorted(unused) + sorted(taken) + _old_files(instance)


def _old_files(instance: Instance) -> list[str]:
    if not instance.in_container:
        return []
    found = [f"{USER_CONFIG} is the hub's configuration, as ever"] if USER_CONFIG.is_file() else []
    if (folder := https.with_certificate(*https.MOUNTED)) and not instance.tls:
        found.append(f"{folder} has a certificate, which is used with SSL_ENABLED=true alone")
    return found


def computed(service: str, instance: Instance, credentials: Credentials) -> dict[str, str]:
    """Where the other parts of this instance are, for one service."""
    port = instance.internal
    own = f"MLHUB_{service.upper().replace('-', '_')}_"
    common = {
        "MLHUB_HUB_NAME": instance.hub_name,
        "MLHUB_NATS_URL": f"nats://{LOOPBACK}:{port['nats']}",
        "MLHUB_NATS_USER": NATS_USER,
        "MLHUB_SECRETS_DIR": str(instance.data.secrets(service)),
    }
    if instance.runs_containers and instance.data.profiles.is_file():
        common |= {"MLHUB_PROFILES_FILE": str(instance.data.profiles)}
    if service != "hub":
        common |= {f"{own}HTTP_HOST": LOOPBACK, f"{own}HTTP_PORT": str(port[service])}
    return common | _PARTS[service](instance, credentials)


def _hub(instance: Instance, credentials: Credentials) -> dict[str, str]:
    port = instance.internal
    ssh_host, ssh_port = instance.shown_ssh
    return {
        "MLHUB_HUB_LISTEN_HOST": LOOPBACK,
        "MLHUB_HUB_LISTEN_PORT": str(port["hub"]),
        "MLHUB_HUB_TARGET_URL": _url(port["hub"]),
        "MLHUB_HUB_PUBLIC_URL": instance.site or instance.public_url,
        "MLHUB_HUB_PROBE_URL": _url(port["probe"]),
        "MLHUB_HUB_WORKSPACE_API_URL": f"http://{_workspaces_see(instance)}:{port['hub-api']}",
        "MLHUB_HUB_CLEANUP_URL": _url(port["cleanup"]),
        "MLHUB_HUB_DATA_DIR": str(instance.data.of("hub")),
        "MLHUB_HUB_BACKEND": instance.backend,
        "MLHUB_HUB_SSH_HOST": ssh_host,
        "MLHUB_HUB_SSH_PORT": str(ssh_port),
        "MLHUB_HUB_SSH_HOST_KEY": credentials.ssh_host_public,
        **_config_of_old(instance),
    }


def _spawner_worker(instance: Instance, credentials: Credentials) -> dict[str, str]:
    capacity = {} if instance.capacity is None else {"MLHUB_SPAWNER_WORKER_CAPACITY": str(instance.capacity)}
    return (
        capacity
        | _docker_worker(instance)
        | {
            "MLHUB_SPAWNER_WORKER_NODE": NODE,
            "MLHUB_SPAWNER_WORKER_BACKEND": instance.backend,
            "MLHUB_SPAWNER_WORKER_DATA_DIR": str(instance.data.of("spawner-worker")),
            "MLHUB_SPAWNER_WORKER_PROBE_URL": _url(instance.internal["probe"]),
            "MLHUB_SPAWNER_WORKER_ATTACH_HOST": LOOPBACK,
            "MLHUB_SPAWNER_WORKER_ATTACH_PORT": str(instance.internal["attach"]),
            "MLHUB_SPAWNER_WORKER_GATEWAY_PUBLIC_KEY": credentials.gateway_public,
        }
    )


def _docker_worker(instance: Instance) -> dict[str, str]:
    if not instance.runs_containers:
        return {}
    return {
        "MLHUB_SPAWNER_WORKER_DOCKER_URL": instance.engine.url,
        "MLHUB_SPAWNER_WORKER_REACH": "self" if instance.in_container else "host",
        "MLHUB_SPAWNER_WORKER_NETWORK_POOL": instance.network_pool,
        "MLHUB_SPAWNER_WORKER_API_PORT": str(instance.internal["hub-api"]),
    }


def _workspaces_see(instance: Instance) -> str:
    """This machine, or this container, by the name it has in users' networks."""
    return "mlhub" if instance.runs_containers else LOOPBACK


def _config_of_old(instance: Instance) -> dict[str, str]:
    """The file that the first ML Hub read, where it read it."""
    if instance.in_container and USER_CONFIG.is_file():
        return {"MLHUB_HUB_USER_CONFIG": str(USER_CONFIG)}
    return {}


def _proxy(instance: Instance, _: Credentials) -> dict[str, str]:
    port = instance.internal
    api = {"MLHUB_PROXY_API_HOST": LOOPBACK}
    if instance.runs_containers:
        # Each user's network has its own gateway, and new ones come: only by its source is a request told apart.
        api = {
            "MLHUB_PROXY_API_HOST": "0.0.0.0",  # noqa: S104
            "MLHUB_PROXY_API_NETWORKS": f"127.0.0.0/8,{instance.network_pool}",
            "MLHUB_PROXY_REFUSED_NETWORKS": instance.network_pool,
        }
    places = https.MOUNTED if instance.in_container else ()
    folder = https.with_certificate(*places) or instance.data.secrets("proxy")
    return api | {
        "MLHUB_PROXY_REPLICA": NODE,
        "MLHUB_PROXY_CERT_DIR": str(folder),
        "MLHUB_PROXY_TLS_NAMES": ",".join(instance.site_hosts),
        "MLHUB_PROXY_SSH_GATEWAY": f"unix:{instance.data.ssh_socket}",
        "MLHUB_PROXY_PUBLIC_HOST": instance.host,
        "MLHUB_PROXY_PUBLIC_PORT": str(instance.port),
        "MLHUB_PROXY_PROBE_HOST": LOOPBACK,
        "MLHUB_PROXY_PROBE_PORT": str(port["probe"]),
        "MLHUB_PROXY_API_PORT": str(port["hub-api"]),
        "MLHUB_PROXY_PUBLIC_URL": instance.site or instance.public_url,
        "MLHUB_PROXY_HUB_URL": _url(port["hub"]),
        "MLHUB_PROXY_HUB_API_URL": f"{_url(port['hub'])}/hub/api",
        "MLHUB_PROXY_DATA_DIR": str(instance.data.of("proxy")),
    }


def _cleanup(instance: Instance, _: Credentials) -> dict[str, str]:
    return {
        "MLHUB_CLEANUP_HUB_API_URL": f"{_url(instance.internal['hub'])}/hub/api",
        "MLHUB_CLEANUP_PUBLIC_URL": instance.site or instance.public_url,
    }


def _ssh_gateway(instance: Instance, credentials: Credentials) -> dict[str, str]:
    workspaces = {"MLHUB_SSH_GATEWAY_REFUSED_NETWORKS": instance.network_pool} if instance.runs_containers else {}
    return workspaces | {
        "MLHUB_SSH_GATEWAY_REPLICA": NODE,
        "MLHUB_SSH_GATEWAY_LISTEN_HOST": instance.host if instance.ssh_port else LOOPBACK,
        "MLHUB_SSH_GATEWAY_LISTEN_PORT": str(instance.ssh_port),
        "MLHUB_SSH_GATEWAY_PROXIED_LISTEN": f"unix:{instance.data.ssh_socket}",
        "MLHUB_SSH_GATEWAY_HOST_KEY_FILE": str(credentials.ssh_host_key),
        "MLHUB_SSH_GATEWAY_CLIENT_KEY_FILE": str(credentials.gateway_key),
        "MLHUB_SSH_GATEWAY_HUB_API_URL": f"{_url(instance.internal['hub'])}/hub/api",
    }


_PARTS = {
    "spawner-worker": _spawner_worker,
    "proxy": _proxy,
    "hub": _hub,
    "cleanup": _cleanup,
    "ssh-gateway": _ssh_gateway,
}


def _is_kept(name: str, service: str) -> bool:
    if name in _FOR_ONE:
        return service in _FOR_ONE[name]
    if _is_ours(name):
        return False
    return name in _KEPT or name in _KEPT_SETTINGS or name.startswith(_KEPT_PREFIXES)


def _is_ours(name: str) -> bool:
    return name.startswith(_OURS)


def _url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"
