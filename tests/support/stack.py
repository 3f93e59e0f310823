"""The whole of ML Hub on this machine, started as a person does: by `mlhub up`, on free ports."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from mlhub_shared.bus import BusSettings
from mlhub_standalone import leftovers, state_file
from mlhub_standalone.credentials import NATS_USER, nats_password
from mlhub_standalone.data_dir import DataDir, read_json
from mlhub_standalone.processes import Identity
from tests.support.bus_reader import BusReader
from tests.support.hub_client import HubClient, Session
from tests.support.ports import free_port

HUB = "test"
API_TOKEN = "a-token-of-the-test-that-is-long-enough"
ADMIN, ADMIN_PASSWORD = "admin", "a-password-of-the-test"

COMPONENTS = ("spawner-worker", "proxy", "hub", "cleanup", "ssh-gateway", "nats", "haproxy")
"""Everything that can be killed."""

FAKE_SERVER = f"{sys.executable} {Path(__file__).with_name('fake_server.py')}"
"""Stands in for JupyterLab where a test starts many workspaces."""

T = TypeVar("T")


class Stack:
    """One instance and the launcher that runs it."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.data = DataDir((folder / "data").resolve())
        self.output = folder / "up.log"
        self.port, self.ssh_port = free_port(), free_port()
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        # Unless a test wants another: what this machine happens to have must not decide.
        self._arguments, self._environment = ("--backend", "process", *arguments), environment
        self._launcher: subprocess.Popen[bytes] | None = None
        self._sessions: list[Session] = []
        self.hub = HubClient(self.url, API_TOKEN)
        self.bus = BusReader(self._bus_settings)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def launcher(self) -> subprocess.Popen[bytes]:
        assert self._launcher is not None, "the stack has not been started"
        return self._launcher

    # Start and end

    def up(self, *arguments: str, within: float = 60) -> Self:
        """`mlhub up`, until it says that all is ready."""
        if self._launcher is not None:
            self._launcher.wait(10)
        self.output.write_bytes(b"")
        self._launcher = self.command(
            "up", "--port", str(self.port), "--ssh-port", str(self.ssh_port), "--hub-name", HUB,
            *self._arguments, *arguments,
        )  # fmt: skip
        try:
            wait_until(self._is_ready, within=within)
        except TimeoutError:
            self.kill_launcher()
            raise RuntimeError(self.report()) from None
        return self

    def is_up(self) -> bool:
        """Its launcher runs."""
        return self._launcher is not None and self._launcher.poll() is None

    def command(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start any command of `mlhub` on this instance, as if typed at a terminal of its own."""
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "mlhub_standalone", *arguments, "--data-dir", str(self.data.root)],
                env=self.environment(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def run(self, *arguments: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run a command of `mlhub` on this instance to its end."""
        return subprocess.run(
            [sys.executable, "-m", "mlhub_standalone", *arguments, "--data-dir", str(self.data.root)],
            env=self.environment(),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        """Little of the tests' own, so that nothing of this machine decides."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
        own = {
            "HOME": str(self.home),
            "MLHUB_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "MLHUB_API_TOKEN": API_TOKEN,
        }
        return {name: value for name, value in (kept | own | self._environment).items() if value}

    def end(self, number: signal.Signals = signal.SIGINT, *, within: float = 60) -> int:
        """Ctrl-C at the launcher's terminal; returns its exit code."""
        self.launcher.send_signal(number)
        return self.launcher.wait(within)

    def kill_launcher(self) -> None:
        """kill -9 of the launcher alone."""
        self.launcher.kill()
        self.launcher.wait()

    def wipe(self) -> None:
        """End whatever is left, by force: for the end of a test, however it went."""
        if self.is_up():
            self.launcher.terminate()
            try:
                self.launcher.wait(60)
            except subprocess.TimeoutExpired:
                self.kill_launcher()
        leftovers.end(self.data, keep_workspaces=False)
        self.hub.close()
        for session in self._sessions:
            session.close()

    # What runs

    def status(self) -> dict[str, Any]:
        """What `mlhub status --json` says."""
        answer: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return answer

    def process(self, component: str) -> Identity | None:
        """The process that is a component now."""
        if component == "haproxy":
            return self._haproxy()
        part = next((part for part in state_file.read(self.data) if part.name == component), None)
        return part.process if part and part.pid else None

    def kill(self, component: str) -> None:
        """kill -9 of one component; nothing if it is dead at the moment."""
        if (process := self.process(component)) is not None:
            process.send(signal.SIGKILL)

    def freeze(self, component: str) -> None:
        """Have a component do nothing any more, without its end: nobody starts it again."""
        if (process := self.process(component)) is not None:
            process.send(signal.SIGSTOP)

    def thaw(self, component: str) -> None:
        """Have it go on."""
        if (process := self.process(component)) is not None:
            process.send(signal.SIGCONT)

    def kill_and_wait(self, component: str, *, within: float = 30) -> None:
        """kill -9 of one component, until another process has taken its place and all is well."""
        before = self.process(component)
        self.kill(component)
        wait_until(lambda: self.process(component) not in {None, before}, within=within)
        self.wait_well(within=within)

    def wait_well(self, *, within: float = 30) -> None:
        """Wait until every component works."""
        try:
            wait_until(lambda: self.run("status").returncode == 0, within=within, every=0.3)
        except TimeoutError:
            raise RuntimeError(self.run("status").stdout + self.report()) from None

    def processes(self) -> list[Identity]:
        """All processes of the components."""
        return leftovers.parts(self.data)

    def workspace_processes(self, name: str | None = None) -> list[Identity]:
        """All processes of one workspace, or of any."""
        found = leftovers.workspaces(self.data)
        return found if name is None else [process for process in found if workspace_of(process) == name]

    # Ways in

    def session(self, user: str = ADMIN, password: str = ADMIN_PASSWORD) -> Session:
        """A browser without a face, logged in."""
        session = self.visitor()
        session.login(user, password)
        return session

    def visitor(self) -> Session:
        """The same, not logged in."""
        session = Session(self.url)
        self._sessions.append(session)
        return session

    def ssh(
        self, login: str, *command: str, key: Path, options: tuple[str, ...] = (), stdin: str = "", timeout: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """OpenSSH's client, knowing nothing and nobody but this key."""
        return subprocess.run(
            [*self.ssh_command(login, key=key, options=options), *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def ssh_command(self, login: str, *, key: Path, options: tuple[str, ...] = ()) -> list[str]:
        """The command line that logs in with a key."""
        settings = {
            "IdentityFile": str(key),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.home / "known_hosts"),
            "StrictHostKeyChecking": "accept-new",
            "PreferredAuthentications": "publickey",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
        }
        chosen = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", *chosen, *options, "-p", str(self.ssh_port), f"{login}@127.0.0.1"]

    def report(self) -> str:
        """What the launcher and the logs say, for a test that failed."""
        tails = [f"--- up\n{self.output.read_text()}"]
        for file in sorted(self.data.log("x").parent.glob("*.log")):
            tails.append(f"--- {file.name}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-30:]))
        return "\n".join(tails)

    def _bus_settings(self) -> BusSettings:
        port = read_json(self.data.instance)["internal"]["nats"]
        return BusSettings(
            url=f"nats://127.0.0.1:{port}",
            hub=HUB,
            service="tests",
            user=NATS_USER,
            password=nats_password(self.data),
        )

    def _is_ready(self) -> bool:
        if self.launcher.poll() is not None:
            raise RuntimeError(self.report())
        return "ML Hub is ready" in self.output.read_text()

    def _haproxy(self) -> Identity | None:
        try:
            return Identity.of(int((self.data.of("proxy") / "haproxy.pid").read_text().split()[0]))
        except (OSError, ValueError, IndexError):
            return None


def workspace_of(process: Identity) -> str | None:
    """The workspace whose mark a process carries."""
    try:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    marks = dict(entry.split(b"=", 1) for entry in environment if b"=" in entry)
    mark = marks.get(b"MLHUB_WORKSPACE")
    return mark.decode() if mark else None


def wait_until(condition: Callable[[], T], *, within: float = 15, every: float = 0.05) -> T:
    """Wait for something true and return it; TimeoutError after so many seconds."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s")
        time.sleep(every)
    return found


@contextmanager
def running_stack(folder: Path, *arguments: str, **environment: str) -> Iterator[Stack]:
    """A stack that is up, and of which nothing is left afterwards."""
    stack = Stack(folder, *arguments, **environment)
    try:
        yield stack.up()
    finally:
        stack.wipe()
