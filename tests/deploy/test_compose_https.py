"""A deployment as a team publishes it: one port, HTTPS by a certificate that it is given, and SSH by the same."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from mlhub_shared.bus import BusSettings
from mlhub_shared.contracts.events import EventKind
from tests.deploy.test_compose import QUICK, start
from tests.support.authority import Authority
from tests.support.bus_reader import BusReader
from tests.support.compose import ADMIN, SERVICES, ComposeStack, docker, missing, running_compose, wait_until
from tests.support.openssh import OpenSsh
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(300)

SERVER = "nohup python3 -m http.server 8765 --bind 127.0.0.1 >/dev/null 2>&1 </dev/null & echo $! >/tmp/server.pid"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what a person gives the deployment."""
    return tmp_path_factory.mktemp("given")


@pytest.fixture(scope="module")
def stack(authority: Authority, given: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    authority.write(given)
    settings = {
        "SSL_ENABLED": "true",
        "MLHUB_SECRETS_DIR": str(given),
        "MLHUB_SSH_PORT": f"127.0.0.1:{free_port()}",
    }
    with running_compose(tmp_path_factory.mktemp("https"), trust=authority.trust(), **settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(stack: ComposeStack, tmp_path_factory: pytest.TempPathFactory) -> OpenSsh:
    """The admin's OpenSSH, at the web's port, and a workspace of his that runs."""
    client = OpenSsh(tmp_path_factory.mktemp("client"), stack.port)
    start(stack, ADMIN, user_options=QUICK)
    session = stack.session()
    added = session.post("/hub/ssh-keys", action="add", label="laptop", public_key=client.public_line)
    assert added.status_code == 200
    assert {cookie.secure for cookie in session.http.cookies.jar} == {True}
    # People are shown the one port that is open to them.
    assert f"ssh -p {stack.port} " in session.get(f"/hub/workspaces/ssh?user={ADMIN}&server=").text
    return client


async def ssh(client: OpenSsh, *words: str) -> str:
    ran = await client.run(ADMIN, *words, within=60)
    assert ran.status == 0, ran.stderr
    return ran.stdout.decode()


def serial_of(port: int) -> str:
    """Of the certificate that is shown."""
    shown = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    return f"{x509.load_pem_x509_certificate(shown.encode()).serial_number:X}"


def bus_of(stack: ComposeStack) -> BusReader:
    """The host may go where nobody else may: into the internal network."""
    address = stack.inspect("nats")["NetworkSettings"]["Networks"][f"{stack.hub_name}_internal"]["IPAddress"]
    password = docker("exec", stack.container("proxy"), "cat", "/run/secrets/mlhub/MLHUB_NATS_PASSWORD")
    settings = BusSettings(
        url=f"nats://{address}:4222", hub=stack.hub_name, service="tests", user="mlhub", password=password
    )
    return BusReader(lambda: settings)


async def test_ssh_by_the_webs_port_enters_a_container(stack: ComposeStack, client: OpenSsh) -> None:
    assert (await ssh(client, "hostname")).strip() == stack.workspace(ADMIN)["Config"]["Hostname"]


def test_the_event_names_the_client(stack: ComposeStack, client: OpenSsh) -> None:
    # A published port sees this host as the gateway of its network; the proxy's own address would say nothing.
    public = stack.inspect("proxy")["NetworkSettings"]["Networks"][f"{stack.hub_name}_public"]
    found = bus_of(stack).events(stack.workspace(ADMIN)["Name"].strip("/"))
    opened = [event.message for event in found if event.kind is EventKind.SESSION_OPENED]
    assert opened
    assert opened[-1].endswith(f" from {public['Gateway']}")


async def test_a_server_on_a_containers_loopback_is_a_tool_of_its_owner_alone(
    stack: ComposeStack, client: OpenSsh
) -> None:
    await ssh(client, SERVER)
    stack.hub.add_user("stranger")
    token = stack.hub.request("POST", "/users/stranger/tokens", json={}).json()["token"]

    def asked(**headers: str) -> int:
        return stack.hub.workspace("GET", ADMIN, "tools/8765/", headers=headers).status_code

    wait_until(lambda: asked() == 200, within=20)
    assert asked(Authorization=f"token {token}") == 403
    assert asked(Authorization="") == 401


async def test_a_renewed_certificate_comes_in_while_everything_runs(
    stack: ComposeStack, client: OpenSsh, authority: Authority, given: Path
) -> None:
    before = {name: stack.inspect(name)["State"]["StartedAt"] for name in SERVICES}
    session = await client.start(ADMIN, "cat")
    assert session.stdin is not None
    assert session.stdout is not None
    session.stdin.write(b"there\n")
    assert await session.stdout.readline() == b"there\n"
    renewed = authority.write(given)
    assert serial_of(stack.port) != renewed
    stack.compose("up", "-d")
    wait_until(lambda: serial_of(stack.port) == renewed, within=30)
    assert {name: stack.inspect(name)["State"]["StartedAt"] for name in SERVICES} == before
    session.stdin.write(b"still here\n")
    assert await session.stdout.readline() == b"still here\n"
    session.stdin.close()
    assert await session.wait() == 0
