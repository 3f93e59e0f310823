"""What a newcomer does first, without a browser."""

import stat

import httpx
import pytest

from tests.support.hub_client import HubClient
from tests.support.kernel import run_cell
from tests.support.stack import ADMIN, ADMIN_PASSWORD, API_TOKEN, HUB, Stack, wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def lab(stack: Stack) -> str:
    """A user whose JupyterLab runs."""
    stack.hub.add_user("alice")
    answer = stack.hub.spawn("alice", cpu_limit=1, env={"GREETING": "good morning"})
    assert answer.status_code in {201, 202}, answer.text
    wait_until(lambda: stack.hub.is_ready("alice"), within=90)
    return "alice"


def test_the_login_page_is_there_and_says_who_is_wanted(stack: Stack) -> None:
    page = httpx.get(f"{stack.url}/", follow_redirects=True)
    assert page.status_code == 200
    assert "password" in page.text
    assert "ML Hub is ready" in stack.output.read_text()
    assert "nothing keeps users apart" in stack.output.read_text()


def test_the_admin_of_the_settings_logs_in_and_nobody_else(stack: Stack) -> None:
    assert stack.session().get("/hub/approvals").status_code == 200
    stranger = stack.session(ADMIN, ADMIN_PASSWORD + "?")
    assert "/hub/login" in str(stranger.get("/hub/approvals").url)


def test_status_shows_every_part_as_ready(stack: Stack) -> None:
    status = stack.status()
    assert {part["name"]: part["state"] for part in status["parts"]} == dict.fromkeys(
        ("nats", "spawner-worker", "proxy", "hub", "cleanup", "ssh-gateway"), "ready"
    )
    assert stack.run("status").returncode == 0
    assert status["launcher"] == stack.launcher.pid


def test_a_real_jupyterlab_runs_a_cell_through_the_proxy(stack: Stack, lab: str) -> None:
    page = stack.hub.workspace("GET", lab, "lab")
    assert page.status_code == 200
    assert "JupyterLab" in page.text
    assert run_cell(stack.hub, lab, "import os; print(6 * 7, os.environ['GREETING'])") == "42 good morning\n"


def test_a_cell_sees_no_secret_of_the_services(stack: Stack, lab: str) -> None:
    seen = run_cell(stack.hub, lab, "import os; print(dict(os.environ))")
    secrets = [file.read_text().strip() for file in stack.data.secrets("x").parent.rglob("MLHUB_*")]
    assert secrets
    assert not [secret for secret in [*secrets, ADMIN_PASSWORD, API_TOKEN] if secret in seen]
    assert "MLHUB_SECRETS_DIR" not in seen


def test_what_is_done_in_a_workspace_counts_as_activity(stack: Stack, lab: str) -> None:
    before = stack.hub.server(lab)["last_activity"]
    run_cell(stack.hub, lab, "print('x' * 10_000)")
    wait_until(lambda: stack.hub.server(lab)["last_activity"] > before, within=15, every=0.3)


def test_nobody_else_gets_in(stack: Stack, lab: str) -> None:
    stranger = HubClient(stack.url, "no token at all")
    assert stranger.workspace("GET", lab, "api/contents").status_code in {401, 403}
    assert stranger.request("GET", "/users").status_code == 403
    stranger.close()


def test_after_the_stop_nothing_is_left_but_the_files(stack: Stack, lab: str) -> None:
    run_cell(stack.hub, lab, "open('kept.txt', 'w').write('still here')")
    name = f"ws-{lab}-{HUB}"
    assert stack.workspace_processes(name)
    assert stack.hub.stop(lab).status_code in {202, 204}
    wait_until(lambda: stack.hub.is_gone(lab), within=30)
    wait_until(lambda: not stack.workspace_processes(name))
    assert [path.name for path in stack.data.root.rglob("kept.txt")] == ["kept.txt"]
    assert stack.hub.workspace("GET", lab, "lab", follow_redirects=True).status_code == 424


def test_nothing_in_the_data_directory_is_open_to_others(stack: Stack) -> None:
    assert stat.S_IMODE(stack.data.root.stat().st_mode) == 0o700
    files = [file for file in stack.data.secrets("x").parent.rglob("*") if file.is_file() and file.suffix != ".pub"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_doctor_and_logs_work_beside_it(stack: Stack) -> None:
    assert stack.run("doctor").returncode == 0
    logs = stack.run("logs", "hub", "-n", "5")
    assert logs.returncode == 0
    assert len(logs.stdout.splitlines()) >= 5


def test_a_second_up_is_told_who_is_there(stack: Stack) -> None:
    second = stack.run("up")
    assert second.returncode == 1
    assert f"process {stack.launcher.pid}" in second.stderr
    assert stack.run("status").returncode == 0
