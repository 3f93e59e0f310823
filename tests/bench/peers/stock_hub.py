"""The stock JupyterHub with a spawner that starts nothing."""

import secrets
from pathlib import Path

from tests.bench.processes import Child, python
from tests.bench.rest import HubClient
from tests.bench.stamps import Stamps
from tests.support.ports import free_port

_CONFIG = Path(__file__).with_name("stock_config.py")


class StockHub(Child):
    """`python -m jupyterhub`; with SQLite as JupyterHub sets it up, or with a write-ahead log as ours does."""

    def __init__(self, folder: Path, *, wal: bool, server_port: int, chp: Path | None) -> None:
        self.token = secrets.token_hex(32)
        self.stamps = Stamps(folder / "start.stamps")
        """Of every call of the spawner's `start()`."""
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        super().__init__(
            "stock-hub",
            python("-m", "jupyterhub", "-f", str(_CONFIG)),
            folder,
            {
                "BENCH_STAMPS": str(self.stamps.path),
                "BENCH_SERVER_PORT": str(server_port),
                "BENCH_WAL": "yes" if wal else "no",
                "BENCH_HUB_PORT": str(port),
                "BENCH_PUBLIC_PORT": str(free_port()),
                "BENCH_PROXY_API_PORT": str(free_port()),
                "BENCH_TOKEN": self.token,
                "BENCH_CHP": str(chp or ""),
            },
        )

    def client(self) -> HubClient:
        """A client with every right that spawning needs."""
        return HubClient(self.url, self.token)
