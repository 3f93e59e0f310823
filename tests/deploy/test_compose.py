"""What a person does with ML Hub by `docker compose up`, and what he must not be able to do."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import ADMIN, SERVICES, ComposeStack, docker, inspect, running_compose, wait_until
from tests.support.hub_client import Session
from tests.support.kernel import run_cell

pytestmark = pytest.mark.timeout(300)

READY_WITHIN = 120.0
"""Seconds from the request to the first answer of JupyterLab, while other tests keep both cores busy."""

HEALTHY_WITHIN = 60.0
"""Seconds on cores that have nothing else to do."""

QUICK = {"profile": "quick"}

DIAL = """
import socket
for host, port in {targets}:
    try:
        with socket.create_connection((host, port), 3) as asked:
            asked.sendall(b"GET /hub/api HTTP/1.0\\r\\n\\r\\n")
            print("open" if asked.recv(1) else "shut", host, port)
    except OSError:
        print("shut", host, port)
"""


def login_shell(
    stack: ComposeStack, login: str, key: Path, *words: str, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Plain OpenSSH to the gateway's published port."""
    settings = {
        "IdentityFile": str(key),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": str(stack.folder / "known_hosts"),
        "StrictHostKeyChecking": "accept-new",
        "PreferredAuthentications": "publickey",
        "BatchMode": "yes",
        "LogLevel": "ERROR",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return subprocess.run(
        ["ssh", "-F", "none", *options, "-p", str(stack.ssh_port), f"{login}@127.0.0.1", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def start(stack: ComposeStack, user: str, server: str = "", **options: Any) -> None:
    """A workspace by REST, until it is ready."""
    stack.hub.add_user(user)
    answer = stack.hub.spawn(user, server, **options)
    assert answer.status_code in {201, 202}, answer.text
    wait_until(lambda: stack.hub.is_ready(user, server), within=READY_WITHIN)


@pytest.fixture(scope="module")
def admin(compose_stack: ComposeStack) -> Session:
    """Who has logged in with the password of the environment."""
    return compose_stack.session()


@pytest.fixture(scope="module")
def form_made(compose_stack: ComposeStack, admin: Session) -> dict[str, Any]:
    """The container of a workspace that was asked for by the form."""
    answer = admin.post("/hub/new-workspace", name="small", cpu_limit="0.5", mem_limit="0.5", days_to_live="1")
    assert answer.status_code == 200, answer.text
    wait_until(lambda: compose_stack.hub.is_ready(ADMIN, "small"), within=READY_WITHIN)
    return compose_stack.workspace(ADMIN, "small")


def test_every_service_is_healthy_soon(compose_stack: ComposeStack) -> None:
    assert set(compose_stack.health().values()) == {"healthy"}
    crowd = max(1.0, os.getloadavg()[1] / (os.cpu_count() or 1))
    assert compose_stack.started_in < HEALTHY_WITHIN * crowd


def test_the_engine_has_fenced_every_service_in(compose_stack: ComposeStack) -> None:
    for name in SERVICES:
        made = compose_stack.inspect(name)
        host = made["HostConfig"]
        assert host["ReadonlyRootfs"] is True, name
        assert (host["CapDrop"], host["CapAdd"] or []) == (["ALL"], []), name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert min(host["Memory"], host["NanoCpus"], host["PidsLimit"]) > 0, name
        assert (made["Config"]["User"] in {"", "root"}) is (name == "spawner-worker"), name
        has_socket = any("docker.sock" in mount["Source"] for mount in made["Mounts"])
        assert has_socket is (name == "spawner-worker"), name


def test_no_service_carries_a_secret_where_the_engine_shows_it(compose_stack: ComposeStack) -> None:
    """But those that the person wrote into the environment himself."""
    proxy = compose_stack.container("proxy")
    password = docker("exec", proxy, "cat", "/run/secrets/mlhub/MLHUB_NATS_PASSWORD")
    assert len(password) > 20
    assert not any(password in str(compose_stack.inspect(name)) for name in SERVICES)
    assert password not in compose_stack.report()


def test_the_limits_of_the_form_are_the_containers(form_made: dict[str, Any]) -> None:
    host = form_made["HostConfig"]
    assert (host["NanoCpus"], host["Memory"]) == (500_000_000, 512 * 1024**2)
    assert host["MemorySwap"] == host["Memory"]
    assert host["CapDrop"] == ["ALL"]
    assert host["PidsLimit"] > 0


def test_a_cell_runs(compose_stack: ComposeStack, form_made: dict[str, Any]) -> None:
    printed = run_cell(compose_stack.hub, ADMIN, "import platform; print(platform.node(), 6 * 7)", server="small")
    assert printed.split() == [form_made["Config"]["Hostname"], "42"]


def test_ssh_opens_a_shell_in_the_container(
    compose_stack: ComposeStack, admin: Session, form_made: dict[str, Any], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = key.with_suffix(".pub").read_text()
    assert admin.post("/hub/ssh-keys", action="add", label="laptop", public_key=public).status_code == 200
    login = f"{ADMIN}--small"
    wait_until(lambda: login_shell(compose_stack, login, key, "true").returncode == 0, within=30)
    run = login_shell(compose_stack, login, key, "hostname; id -un; exit 7")
    assert (run.returncode, run.stdout.split()) == (7, [form_made["Config"]["Hostname"], "jovyan"])
    run = login_shell(compose_stack, login, key, "-tt", stdin="test -t 0 && echo $((6 * 7))\nexit 3\n")
    assert run.returncode == 3, run.stderr
    assert "42" in run.stdout


def test_a_workspace_reaches_the_hubs_api_and_nothing_else_of_the_deployment(
    compose_stack: ComposeStack, form_made: dict[str, Any]
) -> None:
    legs = {name: compose_stack.inspect(name)["NetworkSettings"]["Networks"] for name in SERVICES}
    internal = f"{compose_stack.hub_name}_internal"
    inside = {name: legs[name][internal]["IPAddress"] for name in SERVICES}
    (user_network,) = set(form_made["NetworkSettings"]["Networks"])
    assert {name for name in SERVICES if user_network in legs[name]} == {"proxy", "ssh-gateway"}
    near = {name: legs[name][user_network]["IPAddress"] for name in ("proxy", "ssh-gateway")}
    closed = [
        (inside["nats"], 4222), (inside["hub"], 8081), (inside["cleanup"], 8084), (inside["spawner-worker"], 2200),
        (inside["spawner-worker"], 8084), (near["proxy"], 8003), (near["proxy"], 8084), (near["ssh-gateway"], 8084),
        (near["proxy"], 8080), (near["ssh-gateway"], 2222), (near["ssh-gateway"], 2223),
        (inside["ssh-gateway"], 2223), ("nats", 4222), ("hub", 8081),
    ]  # fmt: skip
    code = DIAL.format(targets=[("mlhub", 8002), *closed])
    printed = run_cell(compose_stack.hub, ADMIN, code, server="small", within=120).splitlines()
    assert printed == ["open mlhub 8002", *(f"shut {host} {port}" for host, port in closed)]


def test_an_upgrade_leaves_workspaces_alone(compose_stack: ComposeStack, form_made: dict[str, Any]) -> None:
    before = {name: compose_stack.container(name) for name in SERVICES}
    compose_stack.up("--force-recreate")
    assert not set(before.values()) & {compose_stack.container(name) for name in SERVICES}
    assert inspect(form_made["Id"])["State"]["StartedAt"] == form_made["State"]["StartedAt"]
    # The new proxy has joined the networks of users, and the hub remembers its users.
    wait_until(lambda: compose_stack.hub.is_ready(ADMIN, "small"), within=30)
    assert run_cell(compose_stack.hub, ADMIN, "print(6 * 7)", server="small").strip() == "42"
    assert compose_stack.session().get("/hub/home").status_code == 200


def test_what_is_stopped_comes_back_with_its_files_and_what_is_deleted_leaves_nothing(
    compose_stack: ComposeStack, admin: Session, form_made: dict[str, Any]
) -> None:
    stack = compose_stack
    run_cell(stack.hub, ADMIN, "open('kept.txt', 'w').write('still here')", server="small")
    assert admin.post("/hub/workspaces/stop", form="/hub/home", user=ADMIN, server="small").status_code == 200
    wait_until(lambda: not stack.workspace(ADMIN, "small"), within=60)
    assert stack.labelled("volume")
    assert admin.post("/hub/workspaces/start", form="/hub/home", user=ADMIN, server="small").status_code == 200
    wait_until(lambda: stack.hub.is_ready(ADMIN, "small"), within=READY_WITHIN)
    assert run_cell(stack.hub, ADMIN, "print(open('kept.txt').read())", server="small").strip() == "still here"
    assert admin.post("/hub/workspaces/delete", form="/hub/home", user=ADMIN, server="small").status_code == 200
    wait_until(lambda: not stack.everything_labelled(), within=60)


def test_a_container_killed_from_outside_is_seen_at_once(compose_stack: ComposeStack) -> None:
    start(compose_stack, "killed")
    docker("kill", compose_stack.workspace("killed")["Id"])
    assert wait_until(lambda: compose_stack.hub.is_gone("killed"), within=30, every=0.1) < 10
    shown = said_of(compose_stack, "killed")
    assert shown, "a workspace that was killed says so"


@pytest.mark.parametrize(
    ("image", "profile", "said"),
    [("mlhub-workspace:no-such-version", "", "no-such-version"), ("", "broken", "exit")],
    ids=["no such image", "exits at start"],
)
def test_a_start_that_fails_says_why_on_the_page_and_by_rest(
    compose_stack: ComposeStack, admin: Session, image: str, profile: str, said: str
) -> None:
    stack, user = compose_stack, "broken" if profile else "nowhere"
    stack.hub.add_user(user)
    options = {"image": image} if image else {"profile": profile}
    assert stack.hub.spawn(user, user_options=options).status_code in {201, 202, 400}
    last = list(stack.hub.progress(user, within=READY_WITHIN))[-1]
    assert last.get("failed") is True, last
    assert said in str(last)
    assert said in admin.get(f"/hub/home?user={user}").text
    wait_until(lambda: not stack.labelled("container"), within=60)


def test_two_deployments_share_an_engine_a_pool_of_addresses_and_the_names_of_users(
    compose_stack: ComposeStack, tmp_path: Path
) -> None:
    start(compose_stack, "twin", user_options=QUICK)
    here = compose_stack.workspace("twin")
    with running_compose(tmp_path, MLHUB_NETWORK_POOL=compose_stack.pool) as other:
        start(other, "twin", user_options=QUICK)
        there = other.workspace("twin")
        subnets = [subnet_of(container) for container in (here, there)]
        assert len(set(subnets)) == 2
        assert other.hub.workspace("GET", "twin", "api").status_code == 200
        other.hub.stop("twin")
        wait_until(lambda: not other.labelled("container"), within=60)
    assert not other.everything_labelled()
    assert inspect(here["Id"])["State"]["StartedAt"] == here["State"]["StartedAt"]
    assert compose_stack.hub.workspace("GET", "twin", "api").status_code == 200
    assert set(compose_stack.health().values()) == {"healthy"}
    compose_stack.hub.stop("twin")


def subnet_of(container: dict[str, Any]) -> str:
    """The one network that a workspace is on."""
    (network,) = container["NetworkSettings"]["Networks"]
    return docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", network)


def said_of(stack: ComposeStack, user: str) -> str:
    """The reason that the hub's page gives for a default workspace that has ended."""
    page = stack.session().get(f"/hub/home?user={user}").text
    return "killed" if "killed" in page.lower() or "137" in page else ""
