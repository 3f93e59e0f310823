"""The worker's settings: `MLHUB_SPAWNER_WORKER_<NAME>`, beside the common ones and the policy."""

import os
import re
import shlex
import socket
import sys
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from mlhub_shared.contracts.identity import Token
from mlhub_shared.contracts.sizes import Size
from mlhub_shared.runtime.settings import CommonSettings, PolicySettings


def _seconds(value: object) -> object:
    """A bare number counts seconds, also where it comes as the text of a variable."""
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    return value


def _blank_is_none(value: object) -> object:
    return None if value == "" else value


def _networks(text: str) -> str:
    for part in filter(None, map(str.strip, text.split(","))):
        ip_network(part)
    return text


def _host_name() -> str:
    return re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:63] or "node"


def _node_name(known: dict[str, Any]) -> str:
    return "kubernetes" if known.get("backend") == "kubernetes" else _host_name()


def _engine_url() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def _engine_certs() -> Path | None:
    verified = os.environ.get("DOCKER_TLS_VERIFY") and os.environ.get("DOCKER_HOST", "").startswith("tcp://")
    folder = os.environ.get("DOCKER_CERT_PATH")
    return Path(folder) if verified and folder else None


Seconds = Annotated[timedelta, BeforeValidator(_seconds), Field(gt=timedelta(0))]
"""Seconds, fractions too."""


Networks = Annotated[str, AfterValidator(_networks)]
"""Addresses and networks, separated by commas."""


Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""A name of Kubernetes."""


class SpawnerWorkerSettings(CommonSettings, PolicySettings):
    """What one worker is and may do."""

    model_config = SettingsConfigDict(env_prefix="MLHUB_SPAWNER_WORKER_", extra="ignore", populate_by_name=True)

    pool: Token = "default"
    """Workers of one pool share one queue."""

    backend: Literal["process", "docker", "kubernetes"] = "process"

    node: Token = Field(default_factory=_node_name)
    """This worker on the bus; workspaces belong to a node, so it must stay the same over restarts. All workers of a
    cluster are one node. Unset: the host's name, and `kubernetes` there."""

    replica: Token = Field(default_factory=_host_name)
    """This worker among those that share its node; read where a backend's workers do."""

    capacity: Annotated[PositiveInt | None, BeforeValidator(_blank_is_none)] = None
    """How many workspaces at once; more wait in line. None: no limit."""

    cpu_capacity: Annotated[PositiveFloat | None, BeforeValidator(_blank_is_none)] = None
    """Cores promised to the workspaces here together; more wait in line. None: no limit, they share the machine."""

    mem_capacity: Size = None
    """Memory, such as `64G`, likewise."""

    labels: Annotated[str, Field(pattern=r"^\s*([A-Za-z0-9][^=,]*=[A-Za-z0-9][^=,]*(,|$)\s*)*$")] = ""
    """Of this node, which profiles may ask for: `zone=b,gpu=a100`."""

    data_dir: Path = Path(".mlhub/spawner-worker")
    """The workspaces' directories and what the worker must remember over a restart; one worker at a time."""

    probe_url: str = "http://127.0.0.1:8003"
    """The proxy's probe frontend: a workspace is ready when it answers through it."""

    prepare_timeout: Seconds = timedelta(minutes=15)
    """For what a start needs first; an image may have to be fetched."""

    start_timeout: Seconds = timedelta(minutes=2)
    """From its start to its first answer; Jupyter with extensions takes seconds on an idle machine, not minutes."""

    stop_grace: Seconds = timedelta(seconds=5)
    """Between the polite signal and the one that can't be refused; the time to save a notebook."""

    stop_timeout: Seconds = timedelta(minutes=1)
    """For one attempt to stop; it is tried again until nothing runs any more."""

    secrets_patience: Seconds = timedelta(seconds=5)
    """For the secrets of a start to appear; the hub writes them before it asks for the start."""

    command: str | None = None
    """What the process backend runs, as in a shell. None: jupyterhub-singleuser of this Python."""

    pass_env: str = ""
    """Names of the worker's own variables, separated by commas, that the workspaces get as well."""

    max_log_bytes: PositiveInt = 1024 * 1024
    """Kept of a workspace's output; the oldest goes first."""

    docker_url: str = Field(default_factory=_engine_url)
    """The container engine: `unix://` and its socket, or `tcp://`. Unset: DOCKER_HOST, else the usual socket."""

    docker_cert_path: Annotated[Path | None, BeforeValidator(_blank_is_none)] = Field(default_factory=_engine_certs)
    """Folder with `ca.pem`, `cert.pem` and `key.pem` for an engine by TLS. Unset: DOCKER_CERT_PATH, as the client."""

    pull: Literal["missing", "always", "never"] = "missing"
    """When an image is fetched: if it is not here, at every start, or never."""

    registry_logins: Annotated[Path | None, BeforeValidator(_blank_is_none)] = None
    """File of logins for registries, as `docker login` writes it (`config.json`). None: images that all may have."""

    engine_calls: PositiveInt = 8
    """Workspaces whose containers are made at the same time; more make nobody faster."""

    gpus: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./:, -]*$")] = ""
    """GPUs of this node: ids separated by commas, or `auto` for those that the engine tells of. Empty: none."""

    kubeconfig: Annotated[Path | None, BeforeValidator(_blank_is_none)] = None
    """How the Kubernetes API is reached. None: as the service account of the worker's own pod."""

    namespace: Annotated[Namespace | None, BeforeValidator(_blank_is_none)] = None
    """Of the workspaces on Kubernetes; it must be there. None: the worker's own, or that of the kubeconfig."""

    services_namespace: Annotated[Namespace | None, BeforeValidator(_blank_is_none)] = None
    """Where proxy and SSH gateway run, the only ones who reach workspaces from outside. None: the worker's own."""

    unreachable_timeout: Seconds = timedelta(minutes=5)
    """How long a node of the cluster may be away before its workspaces are given up."""

    open_to: Networks = ""
    """Private addresses and networks that workspaces on Kubernetes may reach, separated by commas; they reach none
    unless they are named here."""

    dns: Networks = ""
    """Addresses whose port 53 alone workspaces on Kubernetes may reach, where names are not resolved by pods of the
    cluster: GKE with Cloud DNS has 169.254.169.254."""

    reach: Literal["host", "services", "self", "published"] = "host"
    """How the proxy reaches workspaces: from this host, as a container of this engine, as this very container, or at
    published ports of this node."""

    network_pool: IPv4Network = IPv4Network("10.113.0.0/16")
    """Private addresses that the users' networks are cut from; of no other deployment on this engine."""

    network_size: int = Field(default=26, ge=8, le=29)
    """Prefix length of a user's network: 26 has room for some sixty workspaces."""

    firewall: bool = True
    """Keep workspaces off the services of the host."""

    firewall_image: Annotated[str | None, BeforeValidator(_blank_is_none)] = None
    """That the rules are set with. None: the one this worker's container runs, else `mlhub-spawner-worker`."""

    api_port: int = Field(default=8002, gt=0, lt=65536)
    """Of the host, where workspaces find the hub's API; the one port the firewall leaves open to them."""

    publish_address: Annotated[str | None, BeforeValidator(_blank_is_none)] = None
    """Address of this node at which ports are published, for `published`."""

    publish_to: str = ""
    """Addresses and networks that published ports are open to, separated by commas: the proxy's and the gateway's."""

    proxy_address: Annotated[str | None, BeforeValidator(_blank_is_none)] = None
    """Where workspaces find the proxy, for `published`."""

    closed_to: Networks = ""
    """What no workspace may reach, addresses and networks separated by commas: other nodes where ports are published,
    above all, if workspaces leave this node under the proxy's own address; on Kubernetes, public ones of the nodes."""

    attach_host: str = "127.0.0.1"
    """Where the attach endpoint listens, and what the SSH gateway dials."""

    attach_port: int = Field(default=0, ge=0, lt=65536)
    """0: any free port."""

    attach_host_key_file: Path | None = None
    """Private host key of the attach endpoint, made when missing. None: in the data directory."""

    gateway_public_key: str | None = None
    """OpenSSH public key line of the SSH gateway, the one key that may attach. None: nobody may."""

    def arguments(self) -> list[str]:
        """The command as a list of arguments."""
        if self.command:
            return shlex.split(self.command)
        as_root = ["--allow-root"] if os.geteuid() == 0 else []
        return [str(Path(sys.executable).with_name("jupyterhub-singleuser")), *as_root]

    def node_labels(self) -> dict[str, str]:
        """The labels by their keys."""
        pairs = (pair.partition("=") for pair in self.labels.split(",") if pair.strip())
        return {key.strip(): value.strip() for key, _, value in pairs}

    def passed_names(self) -> tuple[str, ...]:
        """The names in `pass_env`."""
        return tuple(name.strip() for name in self.pass_env.split(",") if name.strip())


def own_environment() -> Mapping[str, str]:
    """The worker's environment, secrets included: pass on only what an allow-list names."""
    return os.environ
