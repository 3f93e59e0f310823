"""Answers like a Docker engine, from a script, over a real socket."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mlhub_standalone.engine import Engine


class ScriptedEngine(socketserver.ThreadingUnixStreamServer):
    """Has images, containers and volumes; keeps what it was asked."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.engine = Engine(f"unix://{path}")
        self.images: set[str] = set()
        self.containers: list[dict[str, Any]] = []
        self.volumes: list[dict[str, Any]] = []
        self.info: dict[str, Any] = {"ServerVersion": "20.10.24", "BridgeNfIptables": True}
        self.asked: list[str] = []
        self.silent = threading.Event()
        """Set: accepts, and says nothing."""

    def add_container(
        self, name: str, *, state: str = "running", image: str = "image", workspace: str = "", **labels: str
    ) -> None:
        """`workspace`: a volume, or a folder of the host, that is at /workspace."""
        kind = {"Type": "bind", "Source": workspace} if "/" in workspace else {"Type": "volume", "Name": workspace}
        dotted = {f"mlhub.{label}": value for label, value in labels.items()}
        self.containers.append(
            {
                "Id": f"id-{name}",
                "Names": [f"/{name}"],
                "Labels": dotted,
                "Image": image,
                "State": state,
                "Status": "Up",
                "Mounts": [{"Destination": "/workspace", **kind}] if workspace else [],
            }
        )

    def add_volume(self, name: str, **labels: str) -> None:
        self.volumes.append({"Name": name, "Labels": {f"mlhub.{label}": value for label, value in labels.items()}})


@contextmanager
def scripted_engine(folder: Path) -> Iterator[ScriptedEngine]:
    with ScriptedEngine(folder / "docker.sock") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedEngine

    def do_GET(self) -> None:
        if self.server.silent.is_set():
            threading.Event().wait(10)
            return
        parts = urlsplit(self.path)
        match parts.path.split("/")[1:]:
            case ["version"]:
                self._answer(200, {"Version": self.server.info["ServerVersion"]})
            case ["info"]:
                self._answer(200, self.server.info)
            case ["images", *name, "json"]:
                self._answer(200 if "/".join(name) in self.server.images else 404, {})
            case ["containers", "json"]:
                self._answer(200, self._with_label(self.server.containers, parts.query))
            case ["volumes", _]:
                self._answer(404, {})
            case ["containers", _, "archive"]:
                self._answer(404, {"message": "no such path"})
            case ["volumes"]:
                self._answer(200, {"Volumes": self._with_label(self.server.volumes, parts.query)})
            case _:
                self._answer(404, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/create"):
            self.server.asked.append(f"{self.command} {self.path}")
            self._answer(201, {"Id": "made"})
        else:
            self._note(204)

    def do_DELETE(self) -> None:
        name = self.path.split("/")[2].partition("?")[0]
        self.server.containers = [entry for entry in self.server.containers if entry["Id"] != name]
        self._note(204)

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def _with_label(self, entries: list[dict[str, Any]], query: str) -> list[dict[str, Any]]:
        (label,) = json.loads(parse_qs(query)["filters"][0])["label"]
        name, equals, value = label.partition("=")
        return [
            entry for entry in entries if name in entry["Labels"] and (not equals or entry["Labels"][name] == value)
        ]

    def _note(self, status: int) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.send_response(status)
        self.end_headers()

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
