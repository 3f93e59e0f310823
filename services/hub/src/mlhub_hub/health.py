"""`/hub/health`: whether the hub can do its work."""

from typing import Any

from jupyterhub.handlers import BaseHandler

from mlhub_hub.context import SETTINGS_KEY, HubContext


class HealthHandler(BaseHandler):
    """Open to everybody, like JupyterHub's own, and as quick: it looks only at what the hub holds in memory."""

    async def prepare(self) -> None:
        """No login: a probe has none."""

    def get(self) -> None:
        """200 when workspaces can be started and reached, else 503 and what is missing."""
        report = health_of(self.settings[SETTINGS_KEY])
        self.set_status(200 if report["status"] == "ok" else 503)
        self.set_header("Content-Type", "application/json")
        self.finish(report)

    def head(self) -> None:
        """The status alone."""
        self.get()

    def check_xsrf_cookie(self) -> None:
        """Nothing here changes anything."""


def health_of(context: HubContext) -> dict[str, Any]:
    """What there is, in numbers that tell a stranger nothing."""
    workers = sum(lease.pool == context.settings.pool for lease in context.workers.values())
    proxies = len(context.proxies)
    problems = []
    if not context.bus.is_connected:
        problems.append("the bus is away")
    if not workers:
        problems.append("no worker is running")
    if not proxies:
        problems.append("no proxy is running")
    return {
        "status": "; ".join(problems) or "ok",
        "bus": context.bus.is_connected,
        "workers": workers,
        "proxies": proxies,
    }
