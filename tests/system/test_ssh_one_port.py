"""The whole behind one port with HTTPS on: SSH, files, forwards and a tool of the same workspace, of either kind."""

import shlex
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.engine_cli import missing, new_hub, wipe
from tests.support.hub_client import HubClient, Session
from tests.support.ports import free_port
from tests.support.stack import ADMIN, ADMIN_PASSWORD, API_TOKEN, FAKE_SERVER, Stack, wait_until

pytestmark = pytest.mark.timeout(300)

SERVE = """
cat >serve.py <<'END'
import http.server
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        body = ("tool of this workspace at " + self.path).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
END
nohup python3 serve.py >/dev/null 2>&1 </dev/null &
"""


@dataclass
class Site:
    """A deployment with one public port, its admin's key, and his workspace that runs."""

    stack: Stack
    hub: HubClient
    session: Session
    key: Path
    url: str
    trust: ssl.SSLContext

    def ssh(self, *command: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return self.stack.ssh(ADMIN, *command, key=self.key, stdin=stdin)

    @property
    def options(self) -> list[str]:
        """For the relatives of ssh, without the port, which each spells in its way."""
        return self.stack.ssh_command(ADMIN, key=self.key)[1:-3]

    def tool(self, port: int, token: str | None = API_TOKEN) -> httpx.Response:
        """What a program gets at a tool's address."""
        headers = {"Authorization": f"token {token}"} if token else {}
        address = f"{self.url}/user/{ADMIN}/tools/{port}/some/page"
        return httpx.get(address, headers=headers, verify=self.trust, trust_env=False, timeout=20)


@pytest.fixture(scope="module", params=["process", "docker"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp(request.param)
    name, pool = new_hub()
    options, environment = ["--ssh-port", "off", "--hub-name", name], {"MLHUB_SPAWNER_WORKER_COMMAND": FAKE_SERVER}
    if request.param == "docker":
        if (reason := missing("mlhub-workspace")) is not None:
            pytest.skip(reason)
        options += ["--backend", "docker"]
        environment = {"MLHUB_SPAWNER_WORKER_NETWORK_POOL": pool}
    stack = Stack(folder, *options, **environment)
    stack.ssh_port = stack.port
    try:
        stack.up("--tls", within=120)
        with _entered(stack, folder) as site:
            yield site
    finally:
        stack.wipe()
        if request.param == "docker":
            wipe(name)


@contextmanager
def _entered(stack: Stack, folder: Path) -> Iterator[Site]:
    url = f"https://127.0.0.1:{stack.port}"
    trust = ssl.create_default_context(cafile=str(stack.data.certificate))
    session, hub = Session(url, trust=trust), HubClient(url, API_TOKEN, trust=trust)
    try:
        session.login(ADMIN, ADMIN_PASSWORD)
        key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        public = key.with_suffix(".pub").read_text()
        assert session.post("/hub/ssh-keys", action="add", label="laptop", public_key=public).status_code == 200
        hub.spawn(ADMIN)
        wait_until(lambda: hub.is_ready(ADMIN), within=120)
        wait_until(lambda: stack.ssh(ADMIN, "true", key=key).returncode == 0, within=30, every=0.3)
        yield Site(stack, hub, session, key, url, trust)
    finally:
        session.close()
        hub.close()


@pytest.fixture(scope="module")
def port(site: Site) -> int:
    """Of a server on the workspace's own loopback, started by SSH and left running."""
    port = free_port()
    started = site.ssh("sh", "-s", stdin=SERVE.replace("PORT", str(port)))
    assert started.returncode == 0, started.stderr
    return port


def test_files_go_there_and_come_back(site: Site, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    (tmp_path / "sent").write_bytes(data)
    target = f"{ADMIN}@127.0.0.1"
    for words in ([str(tmp_path / "sent"), f"{target}:there"], [f"{target}:there", str(tmp_path / "back")]):
        scp = ["scp", *site.options, "-P", str(site.stack.port), *words]
        run = subprocess.run(scp, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr
    assert (tmp_path / "back").read_bytes() == data
    if site.ssh("command", "-v", "rsync").returncode == 0:
        rsh = shlex.join(["ssh", *site.options, "-p", str(site.stack.port)])
        rsync = ["rsync", "-e", rsh, f"{target}:there", str(tmp_path / "synced")]
        run = subprocess.run(rsync, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr
        assert (tmp_path / "synced").read_bytes() == data


def test_a_server_on_the_workspaces_loopback_is_reached_by_a_forward(site: Site, port: int) -> None:
    local = free_port()
    command = site.stack.ssh_command(ADMIN, key=site.key, options=("-N", "-L", f"127.0.0.1:{local}:localhost:{port}"))
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:

        def said() -> str:
            try:
                return httpx.get(f"http://127.0.0.1:{local}/by-ssh", trust_env=False, timeout=10).text
            except httpx.TransportError:
                return ""

        assert wait_until(said, within=30) == "tool of this workspace at /by-ssh"
    finally:
        client.terminate()
        client.wait(20)


def test_the_same_server_is_a_tool_for_whom_the_hub_lets_in(site: Site, port: int) -> None:
    wait_until(lambda: site.tool(port).status_code == 200, within=20)
    assert site.tool(port).text == "tool of this workspace at /some/page"
    assert site.tool(port, token=None).status_code == 401
    assert site.tool(port, token="of-nobody").status_code == 401
    assert site.tool(free_port()).status_code in (404, 502, 503)
    headers = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    page = site.session.get(f"/user/{ADMIN}/tools/{port}/by-browser", headers=headers)
    assert (page.status_code, page.text) == (200, "tool of this workspace at /by-browser")


def test_nobody_elses_token_opens_it(site: Site, port: int) -> None:
    site.hub.add_user("bob")
    token = site.hub.request("POST", "/users/bob/tokens", json={"note": "test"}).json()["token"]
    assert site.tool(port, token=token).status_code == 403
