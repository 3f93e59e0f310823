"""`mlhub up` with HTTPS and one port, as a team would publish it."""

import hashlib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.hub_client import HubClient, Session
from tests.support.stack import ADMIN, ADMIN_PASSWORD, API_TOKEN, FAKE_SERVER, Stack, wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, "--ssh-port", "off", MLHUB_SPAWNER_WORKER_COMMAND=FAKE_SERVER)
    stack.ssh_port = stack.port
    try:
        yield stack
    finally:
        stack.wipe()


def fingerprint(stack: Stack) -> str:
    """Of what the public port shows."""
    shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", stack.port), timeout=10))
    return hashlib.sha256(shown).hexdigest()


def test_the_one_port_carries_https_and_ssh_by_a_certificate_that_stays(stack: Stack, tmp_path: Path) -> None:
    stack.up("--tls")
    url = f"https://127.0.0.1:{stack.port}"
    said = stack.output.read_text()
    assert f"ML Hub is ready at {url}" in said
    assert fingerprint(stack) in "".join(said.split()).replace(":", "").lower()
    trust = ssl.create_default_context(cafile=str(stack.data.certificate))
    sent_on = httpx.get(f"{stack.url}/hub/login", trust_env=False)
    assert (sent_on.status_code, sent_on.headers["Location"]) == (308, f"{url}/hub/login")

    session, hub = Session(url, trust=trust), HubClient(url, API_TOKEN, trust=trust)
    try:
        assert "/hub/home" in str(session.login(ADMIN, ADMIN_PASSWORD).url)
        assert session.get("/services/cleanup-service/users", headers={"Accept": "text/html"}).status_code == 200
        cookies = list(session.http.cookies.jar)
        assert {cookie.path for cookie in cookies} >= {"/hub/", "/services/cleanup-service/"}
        assert [cookie.name for cookie in cookies if not cookie.secure] == []

        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        public = key.with_suffix(".pub").read_text()
        assert session.post("/hub/ssh-keys", action="add", label="laptop", public_key=public).status_code == 200
        shown = session.get(f"/hub/workspaces/ssh?user={ADMIN}&server=").text
        assert f"ssh -p {stack.port} {ADMIN}@127.0.0.1" in shown
        hub.spawn(ADMIN)
        wait_until(lambda: hub.is_ready(ADMIN), within=60)
        wait_until(lambda: stack.ssh(ADMIN, "true", key=key).returncode == 0, within=30, every=0.3)
        assert stack.ssh(ADMIN, "echo $MLHUB_WORKSPACE", key=key).stdout == "ws-admin-test\n"
    finally:
        session.close()
        hub.close()

    before = fingerprint(stack)
    stack.end()
    stack.up()
    assert fingerprint(stack) == before
    assert stack.run("status").returncode == 0
    assert f"ssh -p {stack.port} NAME@127.0.0.1" in stack.output.read_text()
