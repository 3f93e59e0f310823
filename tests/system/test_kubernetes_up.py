"""The overlay for one node, from signing in to nothing left; and how people hear of what a cluster can't do."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.cluster_stack import ADMIN, ClusterStack, missing
from tests.support.hub_client import HubClient, Session
from tests.support.kube import NOT_FOUND, Script
from tests.support.openssh import OpenSsh
from tests.support.waiting import until_async

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

ASK_THE_HUB = """
import json, os, urllib.request
request = urllib.request.Request(os.environ["JUPYTERHUB_API_URL"] + "/user")
request.add_header("Authorization", "token " + os.environ["JUPYTERHUB_API_TOKEN"])
print(json.load(urllib.request.urlopen(request, timeout=10))["name"])
"""

NO_ROOM = "0/3 nodes are available: 3 Insufficient cpu."


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterStack]:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    async with ClusterStack.open(tmp_path_factory.mktemp("single"), "single") as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser(stack: ClusterStack) -> Session:
    """The admin's."""
    return await stack.session()


async def comes(stack: ClusterStack, ask: Callable[[], Any], *, within: float = 30) -> None:
    """Wait until what is asked, in a thread of its own, is true."""

    async def there() -> bool:
        return bool(await stack.ask(ask))

    await until_async(there, within=within)


def word(stack: ClusterStack, server: str, wanted: str) -> str:
    """The first of what a start says of itself that has this in it."""
    said = (str(event["message"]) for event in stack.hub.progress(ADMIN, server))
    return next(message for message in said if wanted in message)


def found(stack: ClusterStack, server: str) -> dict[str, Any]:
    """What the hub says of a workspace, running or not."""
    answer = stack.hub.request("GET", f"/users/{ADMIN}", params={"include_stopped_servers": "true"})
    workspace: dict[str, Any] = answer.json()["servers"][server]["workspace"]
    return workspace


def name_of(server: str) -> str:
    return f"ws-{ADMIN}-mlhub-{server}"


async def clear(stack: ClusterStack, server: str) -> None:
    """Delete a workspace, until nothing of it is left."""
    answer = await stack.ask(stack.hub.delete, ADMIN, server)
    assert answer.status_code in {202, 204}, answer.text
    await comes(stack, lambda: not [one for one in stack.left() if one.endswith(name_of(server))])


async def test_from_a_token_to_nothing_left(stack: ClusterStack, browser: Session, tmp_path: Path) -> None:
    made = await stack.ask(stack.hub.request, "POST", f"/users/{ADMIN}/tokens", json={"note": "test"})
    own = HubClient(stack.url, made.json()["token"])
    answer = await stack.ask(own.spawn, ADMIN)
    assert answer.status_code in {201, 202}, answer.text
    await comes(stack, lambda: own.is_ready(ADMIN))
    assert (await stack.ask(own.workspace, "GET", ADMIN, "api")).status_code == 200
    await _by_ssh(stack, browser, tmp_path)
    await stack.ask(own.stop, ADMIN)
    volume = {f"{kind}/ws-{ADMIN}-mlhub" for kind in ("persistentvolumeclaims", "networkpolicies")}
    await comes(stack, lambda: set(stack.left()) == volume)
    await comes(stack, lambda: own.is_gone(ADMIN))
    answer = await stack.ask(own.request, "DELETE", f"/users/{ADMIN}/server", json={"remove": True})
    assert answer.status_code in {202, 204}, answer.text
    await comes(stack, lambda: not stack.left())
    assert [call for call in stack.cluster.requests if call.status in {401, 403}] == [], "the Role is enough"
    own.close()


async def _by_ssh(stack: ClusterStack, browser: Session, folder: Path) -> None:
    """Through the proxy's one port, with a key that was registered on the page."""
    ssh = OpenSsh(folder / "ssh", stack.port)
    page = await stack.ask(browser.post, "/hub/ssh-keys", action="add", label="laptop", public_key=ssh.public_line)
    assert page.status_code == 200

    async def enters() -> bool:
        return (await ssh.run(ADMIN, "true")).status == 0

    await until_async(enters)
    run = await ssh.run(ADMIN, "cat; hostname; exit 7", stdin=b"by the exec of the API\n")
    said, host = run.stdout.decode().splitlines()
    assert (run.status, said) == (7, "by the exec of the API"), run.stderr
    assert host
    run = await ssh.run(ADMIN, "python3 -", stdin=ASK_THE_HUB.encode())
    assert run.stdout.decode().split() == [ADMIN], run.stderr


async def test_who_waits_for_room_reads_what_is_missing(stack: ClusterStack) -> None:
    stack.cluster.kubelet.script(name_of("room"), Script(unschedulable=f"{NO_ROOM} preemption: not eligible."))
    assert (await stack.ask(stack.hub.spawn, ADMIN, "room")).status_code == 202
    assert await stack.ask(word, stack, "room", "room in the cluster") == f"Waiting for room in the cluster: {NO_ROOM}"
    stack.cluster.kubelet.release(name_of("room"))
    await comes(stack, lambda: stack.hub.is_ready(ADMIN, "room"))
    await clear(stack, "room")


async def test_an_image_that_nobody_has_is_named(stack: ClusterStack, browser: Session) -> None:
    stack.cluster.kubelet.script(name_of("image"), Script(pull_error=NOT_FOUND))
    assert (await stack.ask(stack.hub.spawn, ADMIN, "image")).status_code == 202
    *_, end = await stack.ask(lambda: list(stack.hub.progress(ADMIN, "image")))
    assert (end["failed"], end["reason"]) == (True, "image")
    told = await stack.ask(found, stack, "image")
    assert (told["status"], told["reason"]) == ("failed", "image")
    for said in (end["message"], told["message"], (await stack.ask(browser.get, "/hub/home")).text):
        assert "The image mlhub-workspace can" in said
        assert "mlhub-workspace: not found" in said
    await clear(stack, "image")


async def test_a_workspace_that_needed_too_much_memory_says_so(stack: ClusterStack, browser: Session) -> None:
    await stack.spawn(ADMIN, "big")
    stack.cluster.kubelet.kill(name_of("big"), oom=True)
    await comes(stack, lambda: found(stack, "big")["status"] == "failed")
    told = await stack.ask(found, stack, "big")
    assert told["reason"] == "out-of-memory"
    assert "memory" in told["message"]
    assert told["message"] in (await stack.ask(browser.get, "/hub/home")).text
    await clear(stack, "big")


async def test_a_full_quota_is_waited_for_and_named(stack: ClusterStack) -> None:
    stack.cluster.quota("team", pods="0")
    assert (await stack.ask(stack.hub.spawn, ADMIN, "quota")).status_code == 202
    said = await stack.ask(word, stack, "quota", "quota")
    assert said.startswith("The quota team of the namespace mlhub-workspaces is full")
    stack.cluster.quota("team")
    await comes(stack, lambda: stack.hub.is_ready(ADMIN, "quota"))
    await clear(stack, "quota")
    assert stack.left() == []
    assert len(stack.started) == len(set(stack.started)) > 0
