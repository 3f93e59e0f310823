"""A second host of a deployment: an engine and a worker in a network namespace, beyond a link of its own."""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlhub_standalone.credentials import NATS_USER
from mlhub_standalone.data_dir import read_json
from tests.support.engine_cli import docker
from tests.support.ports import free_port
from tests.support.second_engine import SecondEngine, second_engine
from tests.support.stack import Stack

NODE = "second"


@dataclass(frozen=True)
class Link:
    """The cable between the hosts; goes with the namespace."""

    name: str = field(default_factory=lambda: f"mlt{random.randrange(10**8):08d}")
    net: str = field(default_factory=lambda: f"198.{random.choice((18, 19))}.{random.randrange(256)}")

    @property
    def first(self) -> str:
        """The first host's address."""
        return f"{self.net}.1"

    @property
    def second(self) -> str:
        """The second host's address."""
        return f"{self.net}.2"

    def lay(self, namespace: int) -> None:
        """Join the namespace of that process to our own."""
        for line in (
            f"ip link add {self.name} type veth peer name far netns {namespace}",
            f"ip addr add {self.first}/24 dev {self.name}",
            f"ip link set {self.name} up",
            f"nsenter --target={namespace} --net ip addr add {self.second}/24 dev far",
            f"nsenter --target={namespace} --net ip link set far up",
            f"nsenter --target={namespace} --net ip route add default via {self.first}",
        ):
            subprocess.run(line.split(), check=True, capture_output=True, timeout=10)

    def take_up(self) -> None:
        """The addresses are gone at once, however long the namespace takes."""
        subprocess.run(["ip", "link", "del", self.name], check=False, capture_output=True, timeout=10)


class SecondHost:
    """Starts and kills the worker there, which knows no more than an administrator tells it."""

    def __init__(self, engine: SecondEngine, link: Link, folder: Path) -> None:
        self._engine, self.link, self._folder = engine, link, folder
        self.bus_port = free_port()
        self._worker: subprocess.Popen[bytes] | None = None
        self._relay: subprocess.Popen[bytes] | None = None

    def docker(self, *arguments: str) -> str:
        """What a command of its engine's client prints."""
        return docker("--host", self._engine.url, *arguments)

    def load(self, image: str) -> None:
        """Have its engine have an image of the first one's."""
        file = self._folder / "image.tar"
        docker("save", "--output", str(file), image)
        self.docker("load", "--input", str(file))
        file.unlink()

    def join(self, stack: Stack, **settings: str) -> None:
        """Start the worker: with the deployment's secrets that are a worker's, and its own settings."""
        self.environment = self._environment(stack) | settings
        self._relay = self._relay or self._lead(stack)
        self.start()

    def start(self) -> None:
        """Start the worker as it was."""
        with self.log.open("ab") as log:
            self._worker = subprocess.Popen(
                [
                    "nsenter",
                    f"--target={self._engine.namespace}",
                    "--net",
                    sys.executable,
                    "-m",
                    "mlhub_spawner_worker",
                ],
                env=self.environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """kill -9 of the worker alone."""
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait(10)

    @property
    def log(self) -> Path:
        """What the worker says."""
        return self._folder / "worker.log"

    def close(self) -> None:
        """End what runs of it, but for its engine."""
        if self._worker is not None and self._worker.poll() is None:
            self._worker.terminate()
            try:
                self._worker.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait(10)

    def _lead(self, stack: Stack) -> "subprocess.Popen[bytes]":
        """The bus of `mlhub up` is on loopback alone: have it on the link as well."""
        target = read_json(stack.data.instance)["internal"]["nats"]
        line = [sys.executable, "-c", _RELAY, self.link.first, str(self.bus_port), str(target)]
        return subprocess.Popen(line, stdin=subprocess.DEVNULL)

    def _environment(self, stack: Stack) -> dict[str, str]:
        internal = read_json(stack.data.instance)["internal"]
        secrets, own = stack.data.secrets("spawner-worker"), "MLHUB_SPAWNER_WORKER_"
        key = stack.data.secrets("ssh-gateway") / "attach_ed25519_key.pub"
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "MLHUB_NATS_URL": f"nats://{self.link.first}:{self.bus_port}",
            "MLHUB_NATS_USER": NATS_USER,
            "MLHUB_NATS_PASSWORD": (secrets / "MLHUB_NATS_PASSWORD").read_text(),
            f"{own}NODE": NODE,
            f"{own}BACKEND": "docker",
            f"{own}DOCKER_URL": self._engine.url,
            f"{own}DATA_DIR": str(self._folder / "data"),
            f"{own}PROBE_URL": f"http://{self.link.first}:{internal['probe']}",
            f"{own}API_PORT": str(internal["hub-api"]),
            f"{own}REACH": "published",
            f"{own}PUBLISH_ADDRESS": self.link.second,
            f"{own}PUBLISH_TO": self.link.first,
            f"{own}PROXY_ADDRESS": self.link.first,
            f"{own}ATTACH_HOST": self.link.second,
            f"{own}GATEWAY_PUBLIC_KEY": key.read_text().strip(),
        }


@contextmanager
def second_host(folder: Path) -> Iterator[SecondHost]:
    """A host with an engine and a link, no worker yet; nothing is left of it."""
    folder.mkdir()
    # Its loop runs only when the engine is started or ended: what the tests do is not asynchronous.
    with asyncio.Runner() as runner:
        opened, link = second_engine(), Link()
        engine = runner.run(opened.__aenter__())
        host = SecondHost(engine, link, folder)
        try:
            link.lay(engine.namespace)
            yield host
        finally:
            host.close()
            link.take_up()
            runner.run(opened.__aexit__(None, None, None))


_RELAY = """
import asyncio, contextlib, sys
host, port, target = sys.argv[1:]

async def copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()

async def carry(reader, writer):
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", int(target))
    except OSError:
        # It has ended, or is about to start.
        writer.close()
        return
    await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

async def main():
    server = await asyncio.start_server(carry, host, int(port))
    await server.serve_forever()

asyncio.run(main())
"""
