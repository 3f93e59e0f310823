"""The Docker engine of this machine, as far as the launcher itself asks it anything: over its socket, by plain HTTP."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from mlhub_standalone.data_dir import DataDir, read_json
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.options import DOCKER

USUAL = "unix:///var/run/docker.sock"
PATIENCE = 3.0
"""Seconds that one question may take; an engine that needs longer is not one to start ten workspaces with."""

_STOP_GRACE, _STOP_PATIENCE, _STOPS_AT_ONCE = 5, 30.0, 8
_COPY_PATIENCE = 120.0
_PORT = 2375
_ORIGIN, _USER, _SERVER = "mlhub.origin", "mlhub.user", "mlhub.server_name"
_GENERATION, _DEPLOYMENT = "mlhub.generation", "mlhub.deployment"


class EngineAway(LauncherError):
    """No engine answers, and why."""


@dataclass(frozen=True)
class Container:
    """A workspace's container, running or not."""

    id: str
    name: str
    user: str
    server: str
    image: str
    state: str
    """The engine's word: `running`, `exited`, ..."""
    status: str
    """The engine's words for people: `Up 3 minutes`."""
    generation: str = ""
    """Of its start; the containers of the first ML Hub have none."""
    origin: str = ""
    """The name of its hub."""
    image_id: str = ""
    mounted: Mapping[str, str] = field(default_factory=dict)
    """Paths in it that are elsewhere: the name of a volume, or a path of the host."""


@dataclass(frozen=True)
class Volume:
    """A named volume with the labels of a hub."""

    name: str
    origin: str
    user: str
    server: str


def url_of(environment: Mapping[str, str]) -> str:
    """Where the engine is looked for: our own setting, the one of every Docker tool, the usual place."""
    return environment.get("MLHUB_SPAWNER_WORKER_DOCKER_URL") or environment.get("DOCKER_HOST") or USUAL


def kept_engine(data: DataDir) -> "tuple[Engine, str] | None":
    """The engine that runs the workspaces of a kept instance, and its hub's name; None if they are no containers."""
    kept = read_json(data.instance)
    if kept.get("backend") != DOCKER or "hub_name" not in kept:
        return None
    return Engine(kept.get("engine", USUAL)), kept["hub_name"]


@dataclass(frozen=True)
class Engine:
    """One engine; every method blocks for a bounded time, and raises EngineAway where nothing answers."""

    url: str = USUAL

    def require(self) -> str:
        """Its version, if it answers."""
        return str(self._get("/version").get("Version", "unknown"))

    def info(self) -> dict[str, Any]:
        """What it says of itself."""
        answer = self._get("/info")
        return answer if isinstance(answer, dict) else {}

    def has_image(self, name: str) -> bool:
        """Whether it could start this image without fetching anything."""
        return self._ask("GET", f"/images/{quote(name, safe='/:@')}/json")[0] == http.client.OK

    def workspaces(self, hub_name: str) -> list[Container]:
        """The containers of a hub's workspaces, by name."""
        return [container for container in self._containers(f"{_ORIGIN}={hub_name}") if container.generation]

    def left_behind(self) -> list[Container]:
        """The containers of workspaces that the first ML Hub made, under any name; ours to leave alone."""
        return [container for container in self._containers(_ORIGIN) if not container.generation]

    def services(self, hub_name: str) -> list[Container]:
        """The containers of the services of a deployment under this name, those that run."""
        found = self._containers(f"{_DEPLOYMENT}={hub_name}")
        return [container for container in found if container.state == "running"]

    def volumes(self) -> list[Volume]:
        """All volumes that were made for somebody's workspace, of any hub."""
        answer = self._get("/volumes?" + urlencode({"filters": json.dumps({"label": [_ORIGIN]})}))
        volumes = []
        for volume in answer.get("Volumes") or []:
            labels = volume.get("Labels") or {}
            volumes.append(
                Volume(volume["Name"], labels.get(_ORIGIN, ""), labels.get(_USER, ""), labels.get(_SERVER, ""))
            )
        return sorted(volumes, key=lambda volume: volume.name)

    def remove(self, containers: list[Container]) -> int:
        """Stop and remove containers, several at a time; named volumes stay. Returns how many have gone."""
        with ThreadPoolExecutor(_STOPS_AT_ONCE) as threads:
            return sum(threads.map(self._remove, containers))

    def rename(self, container: Container, name: str) -> None:
        """Give a container another name; EngineAway if the engine does not."""
        self._insist("POST", f"/containers/{container.id}/rename?{urlencode({'name': name})}")

    def copy(self, container: Container, path: str, volume: Volume) -> bool:
        """Make a volume of a folder of a container, whole or not at all; False if it has no such folder."""
        at = f"/volumes/{quote(volume.name)}"
        if self._ask("GET", at)[0] != http.client.NOT_FOUND:
            raise EngineAway(f"there is a volume {volume.name} already")
        is_copied = False
        try:
            is_copied = self._copy(container, path, volume)
        finally:
            if not is_copied:
                self._ask("DELETE", at, patience=_STOP_PATIENCE)
        return is_copied

    def _copy(self, container: Container, path: str, volume: Volume) -> bool:
        labels = {_ORIGIN: volume.origin, _USER: volume.user, _SERVER: volume.server}
        self._insist("POST", "/volumes/create", {"Name": volume.name, "Labels": labels})
        mount = {"Type": "volume", "Source": volume.name, "Target": path}
        body = {"Image": container.image_id, "HostConfig": {"Mounts": [mount]}}
        # Never started: an engine has no other way into a volume.
        way_in = self._insist("POST", "/containers/create", body)["Id"]
        try:
            with self._asking("GET", f"/containers/{container.id}/archive?path={path}/.") as archive:
                if archive.status == http.client.OK:
                    self._insist("PUT", f"/containers/{way_in}/archive?path={path}", archive)
                elif archive.status != http.client.NOT_FOUND:
                    raise EngineAway(f"the Docker engine does not show {path} of {container.name} ({archive.status})")
                return archive.status == http.client.OK
        finally:
            self._ask("DELETE", f"/containers/{way_in}?force=true", patience=_STOP_PATIENCE)

    def _containers(self, label: str) -> list[Container]:
        query = urlencode({"all": "true", "filters": json.dumps({"label": [label]})})
        return sorted((_container(entry) for entry in self._get(f"/containers/json?{query}")), key=lambda it: it.name)

    def _remove(self, container: Container) -> bool:
        try:
            self._ask("POST", f"/containers/{container.id}/stop?t={_STOP_GRACE}", patience=_STOP_PATIENCE)
            status, _ = self._ask("DELETE", f"/containers/{container.id}?force=true&v=true", patience=_STOP_PATIENCE)
        except EngineAway:
            return False
        return status in {http.client.NO_CONTENT, http.client.NOT_FOUND}

    def _get(self, path: str) -> Any:
        status, answer = self._ask("GET", path)
        if status != http.client.OK:
            raise EngineAway(f"the Docker engine at {self.url} answers {status} to {path.partition('?')[0]}")
        return answer

    def _insist(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self._ask(method, path, body, patience=_COPY_PATIENCE)
        if status >= http.client.BAD_REQUEST:
            raise EngineAway(f"the Docker engine refuses: {answer.get('message', status)}")
        return answer

    def _ask(self, method: str, path: str, body: Any = None, *, patience: float = PATIENCE) -> tuple[int, Any]:
        with self._asking(method, path, body, patience=patience) as answer:
            return answer.status, _parsed(answer.read())

    @contextmanager
    def _asking(
        self, method: str, path: str, body: Any = None, *, patience: float = PATIENCE
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _connection(self.url, patience)
        try:
            _send(connection, method, path, body)
            yield connection.getresponse()
        except PermissionError:
            raise EngineAway(
                f"{self.url} may not be used by this account: it takes the rights of the group `docker`, or root"
            ) from None
        except FileNotFoundError:
            raise EngineAway(f"there is no Docker engine: no {self.url}") from None
        except (OSError, http.client.HTTPException) as error:
            raise EngineAway(f"no Docker engine answers at {self.url} ({_words(error)})") from None
        finally:
            connection.close()


def _send(connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> None:
    if isinstance(body, http.client.HTTPResponse):
        streamed = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}
        connection.request(method, path, body, streamed, encode_chunked=True)
    elif body is not None:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
    else:
        connection.request(method, path)


def socket_of(url: str) -> Path | None:
    """The file of an engine's socket; None for an engine that is reached otherwise."""
    parts = urlsplit(url)
    return Path(parts.path) if parts.scheme == "unix" else None


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket of this machine."""

    def __init__(self, path: Path, patience: float) -> None:
        super().__init__("docker", timeout=patience)
        self._path, self._patience = path, patience

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._patience)
        self.sock.connect(str(self._path))


def _connection(url: str, patience: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return _Connection(Path(parts.path), patience)
    if parts.scheme in {"tcp", "http"} and parts.hostname:
        return http.client.HTTPConnection(parts.hostname, parts.port or _PORT, timeout=patience)
    raise EngineAway(
        f"{url} is no way to an engine that is known here: unix:///path/to/docker.sock, or tcp://host:port"
    )


def _container(entry: dict[str, Any]) -> Container:
    labels = entry.get("Labels") or {}
    return Container(
        id=entry["Id"],
        name=entry["Names"][0].removeprefix("/") if entry.get("Names") else entry["Id"][:12],
        user=labels.get(_USER, ""),
        server=labels.get(_SERVER, ""),
        image=entry.get("Image", ""),
        state=entry.get("State", ""),
        status=entry.get("Status", ""),
        generation=labels.get(_GENERATION, ""),
        origin=labels.get(_ORIGIN, ""),
        image_id=entry.get("ImageID", ""),
        mounted={it["Destination"]: it.get("Name") or it.get("Source", "") for it in entry.get("Mounts") or []},
    )


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else {}
    except ValueError:
        return {}


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
