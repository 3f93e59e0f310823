"""Configuration of a stock JupyterHub whose spawner starts nothing: `jupyterhub -f stock_config.py`."""

import os
from pathlib import Path

from jupyterhub.spawner import Spawner
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.bench.peers.no_proxy import NoProxy
from tests.bench.stamps import Stamps

STAMPS = Stamps(Path(os.environ["BENCH_STAMPS"]))
SERVER_PORT = int(os.environ["BENCH_SERVER_PORT"])


class InstantSpawner(Spawner):
    """Its servers are there already, all at one address."""

    is_up = False

    async def start(self) -> tuple[str, int]:
        STAMPS.note(f"spawn:{self.user.name}")
        self.is_up = True
        return "127.0.0.1", SERVER_PORT

    async def stop(self, now: bool = False) -> None:
        self.is_up = False

    async def poll(self) -> int | None:
        return None if self.is_up else 0


def use_wal(connection: object, _: object) -> None:
    """What ours sets by default."""
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


if os.environ["BENCH_WAL"] == "yes":
    event.listen(Engine, "connect", use_wal)

c = get_config()  # type: ignore[name-defined]  # noqa: F821  (JupyterHub puts it there)
c.JupyterHub.bind_url = f"http://127.0.0.1:{os.environ['BENCH_PUBLIC_PORT']}"
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = int(os.environ["BENCH_HUB_PORT"])
c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
c.JupyterHub.spawner_class = InstantSpawner
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.log_level = "WARN"
# Neither hub may answer 429: what is measured is how fast it works, not how fast it refuses.
c.JupyterHub.concurrent_spawn_limit = 0
# As ours: a request for a server is answered at once, and its progress followed to the end.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}
c.Authenticator.allow_all = True
c.JupyterHub.services = [{"name": "bench", "api_token": os.environ["BENCH_TOKEN"]}]
c.JupyterHub.load_roles = [{"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers"]}]
if os.environ.get("BENCH_CHP"):
    c.ConfigurableHTTPProxy.command = [os.environ["BENCH_CHP"]]
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{os.environ['BENCH_PROXY_API_PORT']}"
else:
    c.JupyterHub.proxy_class = NoProxy
