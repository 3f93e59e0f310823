"""The pages and the API, as a process of its own, behind a real JupyterHub's login."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from mlhub_shared.bus import Bus
from mlhub_shared.contracts.commands import DeleteWorkspace, StopWorkspace
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.queries import EXTEND_WORKSPACE, ExtendWorkspace
from mlhub_shared.contracts.workspace import Phase, WorkspaceRecord
from mlhub_shared.errors import Permanent
from tests.cleanup.conftest import Seen, living, soon
from tests.cleanup.front_door import FrontDoor
from tests.cleanup.real_hub import ADMIN_TOKEN, PASSWORD, RUNNER_TOKEN, SERVICE_TOKEN, STRANGER_TOKEN, RealHub
from tests.support.nats_server import PASSWORD as NATS_PASSWORD
from tests.support.nats_server import USER as NATS_USER
from tests.support.nats_server import NatsServer
from tests.support.ports import free_port
from tests.support.waiting import until_async

PREFIX = "/services/cleanup-service/"
BROWSER = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
def real_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHub]:
    hub = RealHub(tmp_path_factory.mktemp("hub"))
    try:
        hub.start()
        yield hub
    finally:
        hub.stop()


@pytest.fixture
async def door(nats_server: NatsServer, real_hub: RealHub, tmp_path: Path) -> AsyncIterator[FrontDoor]:
    """The hub and a clean-up process behind one address."""
    door, port = FrontDoor(), free_port()
    door.targets = {"/": real_hub.url, PREFIX: f"http://127.0.0.1:{port}"}
    await door.start()
    environment = {
        "PATH": os.environ["PATH"],
        "MLHUB_HUB_NAME": "test",
        "MLHUB_NATS_URL": nats_server.url,
        "MLHUB_NATS_USER": NATS_USER,
        "MLHUB_NATS_PASSWORD": NATS_PASSWORD,
        "MLHUB_CLEANUP_HTTP_PORT": str(port),
        "MLHUB_CLEANUP_HUB_API_URL": f"{real_hub.url}/hub/api/",
        "MLHUB_CLEANUP_HUB_API_TOKEN": SERVICE_TOKEN,
        "MLHUB_CLEANUP_PUBLIC_URL": door.url,
        "CLEANUP_INTERVAL_SECONDS": "-1",
        "MLHUB_KEEP_VOLUMES_DAYS": "7",
    }
    with (tmp_path / "cleanup.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mlhub_cleanup", env=environment, stdout=log, stderr=log
        )
    try:
        await ready(f"http://127.0.0.1:{port}")
        yield door
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert await asyncio.wait_for(process.wait(), 20) == 0, (tmp_path / "cleanup.log").read_text()
        finally:
            await door.stop()
    written = (tmp_path / "cleanup.log").read_text()
    for secret in (SERVICE_TOKEN, RUNNER_TOKEN, NATS_PASSWORD):
        assert secret not in written


async def ready(url: str) -> None:
    async with httpx.AsyncClient() as client:

        async def answers() -> bool:
            try:
                return (await client.get(f"{url}/ready")).status_code == 200
            except httpx.TransportError:
                return False

        await until_async(answers, within=20)


@asynccontextmanager
async def browser(door: FrontDoor, user: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that is logged in to the hub as that user."""
    async with httpx.AsyncClient(base_url=door.url, headers=BROWSER, follow_redirects=True, timeout=20) as client:
        if user is not None:
            await client.get("/hub/login")
            form = {"username": user, "password": PASSWORD, "_xsrf": client.cookies["_xsrf"]}
            await client.post("/hub/login", data=form, params={"next": "/hub/token"})
        yield client


def program(door: FrontDoor, token: str | None) -> httpx.AsyncClient:
    headers = {"Authorization": f"token {token}"} if token else {}
    return httpx.AsyncClient(base_url=f"{door.url}{PREFIX}", headers=headers, timeout=20)


def form_token(page: httpx.Response) -> str:
    found = re.search(r'name="_xsrf" value="([0-9a-f]{64})"', page.text)
    assert found is not None, page.text
    return found[1]


async def put(seen: Seen, value: WorkspaceRecord) -> WorkspaceRecord:
    await seen.put(value)
    await asyncio.sleep(0.2)
    return value


async def test_an_admin_looks_and_stops_by_browser(door: FrontDoor, seen: Seen) -> None:
    hostile = "<script>alert(1)</script>"
    later = await put(seen, living("later", until=soon(3600)))
    over = await put(seen, living(hostile, until=soon(-600), node="n9"))
    async with browser(door, "admin") as admin:
        page = await admin.get(PREFIX)
        assert page.status_code == 200
        assert str(page.url) == f"{door.url}{PREFIX}expired"
        assert over.name in page.text
        assert later.name not in page.text
        assert hostile not in page.text
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        [cookie] = [cookie for cookie in admin.cookies.jar if cookie.name == "service-cleanup-service"]
        assert cookie.path == PREFIX
        assert cookie.has_nonstandard_attr("HttpOnly")
        done = await admin.post(f"{PREFIX}expired", data={"_xsrf": form_token(page)})
        assert done.status_code == 200
    command = await seen.command(over)
    assert isinstance(command, StopWorkspace)


async def test_a_user_who_is_no_admin_is_refused(door: FrontDoor) -> None:
    async with browser(door, "alice") as alice:
        for page in ("", "users", "expired"):
            assert (await alice.get(f"{PREFIX}{page}")).status_code == 403


async def test_a_browser_without_a_login_is_sent_to_it(door: FrontDoor) -> None:
    async with browser(door) as nobody:
        page = await nobody.get(f"{PREFIX}users")
        assert page.url.path == "/hub/login"
        answer = await nobody.get(f"{PREFIX}users", follow_redirects=False)
        assert "code_challenge_method=S256" in answer.headers["Location"]
        assert "HttpOnly" in answer.headers["Set-Cookie"]
        assert "SameSite=lax" in answer.headers["Set-Cookie"]


async def test_a_login_that_was_not_begun_here_is_not_finished(door: FrontDoor) -> None:
    async with browser(door, "admin") as admin:
        begun = await admin.get(f"{PREFIX}expired", follow_redirects=False)
        back = await admin.get(begun.headers["Location"], follow_redirects=False)
        target = back.headers["Location"]
        assert f"{PREFIX}oauth_callback?code=" in target
        async with browser(door) as other:
            assert (await other.get(target, follow_redirects=False)).status_code == 403
        wrong = re.sub(r"state=[^&]+", "state=another", target)
        assert (await admin.get(wrong, follow_redirects=False)).status_code == 403
        assert (await admin.get(target, follow_redirects=False)).status_code == 303


async def test_a_form_from_elsewhere_does_nothing(door: FrontDoor, seen: Seen) -> None:
    over = await put(seen, living(until=soon(-600), phase=Phase.STARTING, node="n9", generation=8))
    async with browser(door, "admin") as admin:
        page = await admin.get(f"{PREFIX}expired")
        right = {"_xsrf": form_token(page)}
        before = await seen.command(over)
        for form, headers in (
            ({}, {}),
            ({"_xsrf": "0" * 64}, {}),
            (right, {"Origin": "http://evil.example"}),
            (right, {"Origin": "null"}),
            (right, {"Sec-Fetch-Site": "same-site"}),
        ):
            answer = await admin.post(f"{PREFIX}expired", data=form, headers=headers)
            assert answer.status_code == 403
        assert await seen.command(over) == before
        read = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
        assert (await admin.get(f"{PREFIX}expired", headers=read)).status_code == 401
        right_origin = {"Origin": door.url, "Sec-Fetch-Site": "same-origin"}
        assert (await admin.post(f"{PREFIX}expired", data=right, headers=right_origin)).status_code == 200


@pytest.mark.parametrize(
    ("token", "status"),
    [(None, 401), ("nonsense", 401), (STRANGER_TOKEN, 403), (SERVICE_TOKEN, 403), (RUNNER_TOKEN, 200)],
)
async def test_a_program_needs_a_token_with_the_scope(door: FrontDoor, token: str | None, status: int) -> None:
    async with program(door, token) as client:
        for path in ("users", "expired"):
            assert (await client.get(path)).status_code == status
            assert (await client.post(path)).status_code == status
        refused = await client.post("extend", json={"user": "nobody", "days": 1})
        assert refused.status_code == (404 if status == 200 else status)


async def test_an_admin_token_of_a_user_works_and_a_users_own_does_not(door: FrontDoor) -> None:
    async with httpx.AsyncClient(
        base_url=f"{door.url}/hub/api", headers={"Authorization": f"token {ADMIN_TOKEN}"}
    ) as root:
        for user, status in (("admin", 200), ("alice", 403)):
            await root.post(f"/users/{user}")
            made = await root.post(f"/users/{user}/tokens", json={"note": "test"})
            assert made.status_code == 201, made.text
            async with program(door, made.json()["token"]) as client:
                assert (await client.get("expired")).status_code == status


async def test_workspaces_of_missing_users_are_reported_then_deleted(door: FrontDoor, seen: Seen) -> None:
    gone, kept = await put(seen, living("ghost", until=None)), await put(seen, living("admin", until=None))
    async with program(door, RUNNER_TOKEN) as client:
        looked = (await client.get("users")).json()
        assert [(item["workspace"], item["outcome"]) for item in looked["workspaces"]] == [(gone.name, "found")]
        assert looked["dry_run"] is True
        assert await seen.command(gone) is None
        done = (await client.post("users")).json()
        assert [(item["workspace"], item["outcome"]) for item in done["workspaces"]] == [(gone.name, "asked")]
    command = await seen.command(gone)
    assert isinstance(command, DeleteWorkspace)
    assert command.requester == "service:runner"
    assert await seen.command(kept) is None


async def test_the_page_says_what_nobody_has_deleted_and_what_is_kept(door: FrontDoor, seen: Seen) -> None:
    warning = "nothing tells that they"
    await put(seen, living("ghost", until=None))
    at = datetime.now(UTC)
    await seen.bus.emit(Event(kind=EventKind.USER_DELETED, user="ghost", requester="user:admin", at=at))
    async with browser(door, "admin") as admin:
        page = (await admin.get(f"{PREFIX}users")).text
        assert f"{at:%Y-%m-%d %H:%M:%S} UTC" in page
        assert warning not in page
        assert re.search(r"kept for another\s+7 days", page)
        await put(seen, living("stranger", until=None))
        page = (await admin.get(f"{PREFIX}users")).text
    assert warning in page
    assert "not known" in page


async def test_a_workspace_is_extended_by_its_worker(door: FrontDoor, bus: Bus, seen: Seen) -> None:
    end = soon(3600)
    value = await put(seen, living("alice", "gpu1", until=end))
    asked: list[ExtendWorkspace] = []

    async def extended(query: ExtendWorkspace) -> WorkspaceRecord:
        asked.append(query)
        if len(asked) > 2:
            raise Permanent("at most 3 days here")
        return value.model_copy(update={"expires_at": query.expires_at})

    async with program(door, RUNNER_TOKEN) as client:
        body = {"user": "alice", "server": "gpu1", "days": 0.5}
        assert (await client.post("extend", json=body)).status_code == 503
        await bus.answer(EXTEND_WORKSPACE, ExtendWorkspace, extended, node="n1")
        answer = await client.post("extend", json=body)
        assert answer.status_code == 200
        assert asked[0].expires_at == end + timedelta(days=0.5)
        assert (asked[0].requester, asked[0].generation) == ("service:runner", value.generation)
        assert (await client.post("extend", json=body | {"days": 0})).json()["expires_at"] is None
        refused = await client.post("extend", json=body)
        assert (refused.status_code, refused.json()["detail"]) == (409, "at most 3 days here")
        for bad in (b"", b"[]", b'{"user": "alice", "days": -1}', b'{"user": "alice", "days": "many"}', b'{"days": 1}'):
            assert (await client.post("extend", content=bad)).status_code == 422


@pytest.mark.parametrize("fields", [{"until": None}, {"until": soon(60), "phase": Phase.STOPPED}])
async def test_what_has_no_end_can_not_be_extended(door: FrontDoor, seen: Seen, fields: dict[str, object]) -> None:
    value = await put(seen, living(**fields))  # type: ignore[arg-type]
    async with program(door, RUNNER_TOKEN) as client:
        answer = await client.post("extend", json={"user": value.workspace.user, "days": 1})
    assert answer.status_code == 409
