"""ML Hub by `docker compose up` from the repository's root: a deployment of the test's own, real in every part."""

import json
import os
import random
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self

import yaml

from tests.support.hub_client import HubClient, Session
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
SERVICES = ("nats", "hub", "spawner-worker", "cleanup", "ssh-gateway", "proxy")
IMAGES = tuple(
    f"mlhub-{name}"
    for name in ("nats", "hub", "spawner-worker", "cleanup", "ssh-gateway", "proxy", "standalone", "workspace")
)


def read_config(command: tuple[str, ...], *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What that compose says of files it is to read, with no other variables than these."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ}
    return subprocess.run(
        [*command, *options, "config"],
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


API_TOKEN = "a-token-of-the-test-that-is-long-enough"
ADMIN, ADMIN_PASSWORD = "admin", "a-password-of-the-test"

_FAKE_SERVER = Path(__file__).with_name("fake_server.py").read_text()

PROFILES = {
    "profiles": [
        {"name": "jupyterlab", "image": "mlhub-workspace"},
        {"name": "quick", "image": "mlhub-workspace", "command": ["python3", "-c", _FAKE_SERVER]},
        {"name": "broken", "image": "mlhub-workspace", "command": ["sh", "-c", "echo out of luck >&2; exit 3"]},
    ],
    "images": ["mlhub-workspace:*"],
}
"""The default workspace, one that starts in no time and can only answer, and one that never does."""

_KINDS = {"container": ("ps", "-a"), "network": ("network", "ls"), "volume": ("volume", "ls")}


def _runs(*command: str) -> bool:
    return (
        shutil.which(command[0]) is not None
        and subprocess.run([*command, "version"], capture_output=True, timeout=30, check=False).returncode == 0
    )


COMPOSE_COMMANDS = {command: _runs(*command) for command in (("docker", "compose"), ("docker-compose",))}
"""Versions 2 and 1, and whether they are here."""


def docker(*arguments: str, within: float = 60, check: bool = True) -> str:
    """What a command of the engine's client prints."""
    run = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=within, check=False, stdin=subprocess.DEVNULL
    )
    if check and run.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {run.stderr.strip() or run.stdout.strip()}")
    return run.stdout.strip()


@cache
def missing() -> str | None:
    """Why nothing can be deployed here; None: it can."""
    if shutil.which("docker") is None:
        return "no Docker engine answers: there is no `docker` here"
    try:
        docker("version", "--format", "{{.Server.Version}}", within=20)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return f"no Docker engine answers: {str(error)[:200]}"
    if compose_command() is None:
        return "there is no `docker compose` here"
    there = set(docker("images", "--format", "{{.Repository}}").split())
    if absent := sorted(set(IMAGES) - there):
        return f"no {', '.join(absent)} on this engine: make images"
    return None


def compose_command() -> tuple[str, ...] | None:
    """Version 2, else version 1."""
    return next((command for command, is_there in COMPOSE_COMMANDS.items() if is_there), None)


class ComposeStack:
    """One deployment: its project, its name, its ports and its addresses are no other's."""

    def __init__(self, folder: Path, *, trust: ssl.SSLContext | None = None, **environment: str) -> None:
        """`trust`: whose certificates are believed, where it speaks HTTPS."""
        self.trust = trust
        self.hub_name = f"t{random.randrange(16**8):08x}"
        self.port, self.ssh_port = free_port(), free_port()
        self.pool = f"10.{random.randint(114, 200)}.{random.randrange(0, 256, 4)}.0/22"
        self.folder = folder
        self.started_in = 0.0
        config = folder / "config"
        config.mkdir()
        # Services read it that are not root.
        config.chmod(0o755)
        (config / "profiles.yaml").write_text(yaml.safe_dump(PROFILES))
        files = {"MLHUB_CONFIG_DIR": str(config), "MLHUB_PROFILES_FILE": "/config/profiles.yaml"}
        self._environment = files | environment
        self._sessions: list[Session] = []
        self.hub = HubClient(self.url, API_TOKEN, trust=trust or True)

    @property
    def url(self) -> str:
        return f"{'https' if self.trust else 'http'}://127.0.0.1:{self.port}"

    # Start and end

    def up(self, *arguments: str, within: float = 180) -> Self:
        """`docker compose up -d`, until every service is healthy."""
        began = time.monotonic()
        self.compose("up", "-d", *arguments)
        try:
            wait_until(lambda: set(self.health().values()) == {"healthy"}, within=within, every=1)
        except TimeoutError:
            raise RuntimeError(f"{self.health()}\n{self.report()}") from None
        self.started_in = time.monotonic() - began
        return self

    def wipe(self) -> None:
        """Remove everything of this deployment, however the test went."""
        self.hub.close()
        for session in self._sessions:
            session.close()
        self.compose("stop", "-t", "3", "spawner-worker", "proxy", "ssh-gateway", check=False)
        if containers := self.labelled("container"):
            docker("rm", "-f", *containers, check=False)
        self.compose("down", "-v", "-t", "3", "--remove-orphans", check=False)
        for kind in ("network", "volume"):
            if found := self.labelled(kind):
                docker(kind, "rm", *found, check=False)
        docker(
            "run", "--rm", "--network=host", "--cap-add=NET_ADMIN", "--cap-add=NET_RAW", "--user=0",
            "mlhub-spawner-worker", "python", "-m", "mlhub_spawner_worker.firewall", "remove", "--hub", self.hub_name,
            check=False,
        )  # fmt: skip

    def compose(self, *arguments: str, check: bool = True, within: float = 180) -> str:
        """A command of compose on this deployment."""
        command = compose_command()
        assert command is not None
        run = subprocess.run(
            [*command, "-p", self.hub_name, "-f", str(ROOT / "compose.yaml"), *arguments],
            env=self.environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check and run.returncode:
            raise RuntimeError(f"compose {' '.join(arguments)}: {run.stderr}\n{self.report()}")
        return run.stdout

    def environment(self) -> dict[str, str]:
        """What a person would write into `.env`; nothing of the tests' own."""
        kept = ("PATH", "HOME", "DOCKER_CONFIG", "DOCKER_HOST")
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "HUB_NAME": self.hub_name,
            "MLHUB_PORT": str(self.port),
            "MLHUB_SSH_PORT": str(self.ssh_port),
            "MLHUB_NETWORK_POOL": self.pool,
            "MLHUB_API_TOKEN": API_TOKEN,
            "MLHUB_ADMIN_PASSWORD": ADMIN_PASSWORD,
            **self._environment,
        }

    # What runs

    def container(self, service: str) -> str:
        """The id of a service's container."""
        label = f"mlhub.service={service}"
        found = docker("ps", "-aq", "--no-trunc", "--filter", label_of(self.hub_name), "--filter", f"label={label}")
        assert found, f"there is no container of {service}"
        return found.split()[0]

    def inspect(self, service: str) -> dict[str, Any]:
        """How a service's container was made, and how it is."""
        return inspect(self.container(service))

    def health(self) -> dict[str, str]:
        """What the engine says of each service."""
        return {name: self._health(name) for name in SERVICES}

    def _health(self, service: str) -> str:
        try:
            state = self.inspect(service)["State"]
        except (AssertionError, RuntimeError):
            return "away"
        return str(state["Health"]["Status"]) if state["Running"] else str(state["Status"])

    def labelled(self, kind: str) -> list[str]:
        """Names of all containers, networks or volumes that were made for users."""
        column = "{{.Names}}" if kind == "container" else "{{.Name}}"
        listed = docker(*_KINDS[kind], "--filter", f"label=mlhub.origin={self.hub_name}", "--format", column)
        return listed.split()

    def everything_labelled(self) -> list[str]:
        """Whatever was made for users and is there."""
        return [f"{kind} {name}" for kind in _KINDS for name in self.labelled(kind)]

    def workspace(self, user: str, server: str = "") -> dict[str, Any]:
        """The container of a workspace, as the engine describes it; empty if there is none."""
        wanted = (f"label=mlhub.user={user}", f"label=mlhub.server_name={server}")
        filters = [word for label in wanted for word in ("--filter", label)]
        found = docker("ps", "-aq", "--no-trunc", "--filter", f"label=mlhub.origin={self.hub_name}", *filters).split()
        described = [inspect(container) for container in found]
        exact = [one for one in described if one["Config"]["Labels"]["mlhub.server_name"] == server]
        assert len(exact) <= 1, f"{user}/{server} runs {len(exact)} times"
        return exact[0] if exact else {}

    def kill(self, service: str) -> None:
        """`docker compose kill`: it stays away until somebody starts it."""
        self.compose("kill", service)

    def crash(self, service: str) -> None:
        """kill -9 of what runs in a container, from outside: the engine starts it again."""
        if (pid := self.inspect(service)["State"]["Pid"]) > 0:
            os.kill(pid, signal.SIGKILL)

    def session(self, user: str = ADMIN, password: str = ADMIN_PASSWORD) -> Session:
        """Somebody who has logged in by the form."""
        session = Session(self.url, trust=self.trust or True)
        self._sessions.append(session)
        answer = session.login(user, password)
        assert answer.status_code == 200, answer.text
        assert "/hub/login" not in str(answer.url), answer.text
        return session

    def report(self) -> str:
        """What the services logged last."""
        log = subprocess.run(
            [*(compose_command() or ()), "-p", self.hub_name, "-f", str(ROOT / "compose.yaml"), "logs", "--tail=60"],
            env=self.environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return log.stdout + log.stderr


def label_of(hub_name: str) -> str:
    """The filter for a deployment's services."""
    return f"label=mlhub.deployment={hub_name}"


def inspect(container: str) -> dict[str, Any]:
    """Everything the engine knows of a container."""
    described: list[dict[str, Any]] = json.loads(docker("inspect", container))
    return described[0]


def wait_until(condition: Callable[[], object], *, within: float, every: float = 0.3) -> float:
    """Wait for something to be so; returns the seconds it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within:
            raise TimeoutError(f"not so within {within} s")
        time.sleep(every)
    return time.monotonic() - began


@contextmanager
def running_compose(folder: Path, *, trust: ssl.SSLContext | None = None, **environment: str) -> Iterator[ComposeStack]:
    """A deployment that runs, removed at the end."""
    stack = ComposeStack(folder, trust=trust, **environment)
    try:
        yield stack.up()
    finally:
        stack.wipe()
