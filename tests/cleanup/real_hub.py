"""A stock JupyterHub that starts no servers and has no proxy, with the clean-up registered as its service."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.support.ports import free_port

SERVICE_TOKEN = "the-token-of-the-clean-up-service"
RUNNER_TOKEN = "a-token-that-may-run-clean-ups"
STRANGER_TOKEN = "a-token-that-may-not-run-them"
ADMIN_TOKEN = "a-token-that-may-do-everything"
PASSWORD = "a-password-of-all-users"

CONFIG = """
from jupyterhub.proxy import Proxy


class NoProxy(Proxy):
    should_start = False

    async def add_route(self, routespec, target, data):
        pass

    async def delete_route(self, routespec):
        pass

    async def get_all_routes(self):
        return {{}}


c = get_config()  # noqa
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "{password}"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {{"admin"}}
c.JupyterHub.custom_scopes = {{"custom:cleanup:run": {{"description": "Run clean-ups"}}}}
c.JupyterHub.services = [
    {{
        "name": "cleanup-service",
        "url": "http://127.0.0.1:1",
        "api_token": "{service}",
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": ["custom:cleanup:run", "access:services!service=cleanup-service"],
    }},
    {{"name": "runner", "api_token": "{runner}"}},
    {{"name": "stranger", "api_token": "{stranger}"}},
    {{"name": "root", "api_token": "{admin}"}},
]
c.JupyterHub.load_roles = [
    {{"name": "cleanup", "services": ["cleanup-service"], "scopes": ["list:users"]}},
    {{"name": "runners", "services": ["runner"], "scopes": ["custom:cleanup:run"]}},
    {{"name": "strangers", "services": ["stranger"], "scopes": ["list:users"]}},
    {{"name": "roots", "services": ["root"], "scopes": ["admin-ui", "admin:users", "tokens"]}},
    {{
        "name": "cleanup-admins",
        "users": ["admin"],
        "scopes": ["custom:cleanup:run", "access:services!service=cleanup-service"],
    }},
]
"""


class RealHub:
    """One JupyterHub process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.py"
        config.write_text(
            CONFIG.format(
                port=self.port,
                folder=self.folder,
                password=PASSWORD,
                service=SERVICE_TOKEN,
                runner=RUNNER_TOKEN,
                stranger=STRANGER_TOKEN,
                admin=ADMIN_TOKEN,
            )
        )
        command = [sys.executable, "-m", "jupyterhub", "-f", str(config)]
        with (self.folder / "hub.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, env=dict(os.environ))
        self._answers()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    def _answers(self) -> None:
        assert self._process is not None
        for _ in range(300):
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/hub/api/", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise RuntimeError((self.folder / "hub.log").read_text())
