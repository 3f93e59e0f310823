"""Whatever people and administrators write, no page runs it: every field hostile, every page in a real Chromium."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from playwright.async_api import expect

from mlhub_shared.contracts.queries import LIST_PORTS, ListPorts, Port, Ports
from mlhub_shared.contracts.services import OpenSession
from mlhub_shared.contracts.workspace import Phase, Reason
from tests.hub.conftest import Stage, make_stage
from tests.hub.images import images_environment
from tests.hub.pages.browser import browser, chromium, visitor
from tests.hub.pages.conftest import PASSWORD, approved, now
from tests.hub.pages.test_pages import Active
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD
from tests.support.makers import workspace
from tests.support.scripted_worker import NODE

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="needs chromium on PATH"),
]

SCRIPT = "<script>window.owned=1</script>"
ATTRIBUTE = "\"'><img src=x onerror=window.owned=1>"
TEXT = f"{ATTRIBUTE}{SCRIPT}</textarea></pre>{{{{7*7}}}}');window.owned=1;//"
TITLE = f"{ATTRIBUTE}{SCRIPT}"[:64].strip()
IMAGE = "registry.example/team/javascript:alert"
NAME = "mallory"
KEY = "ws-mallory-test-evil"

PROFILES = json.dumps(
    {
        "profiles": [
            {
                "name": "small",
                "display_name": TITLE,
                "description": TEXT,
                "image": "registry.example/lab:1",
                "default_cpu": 1,
            }
        ],
        "images": ["registry.example/team/*", TEXT],
    }
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("hub")
    async for stage in make_stage(folder, **images_environment(folder, PROFILES)):
        stage.worker.say(
            backend=TEXT,
            version=TEXT,
            limits=TEXT,
            labels={TEXT: TEXT},
            gpus=(TEXT, "0"),
            gpus_free=(TEXT,),
            cpu_total=16,
            mem_total=2**36,
        )
        yield stage


@pytest.mark.timeout(240)
async def test_no_page_runs_what_somebody_wrote(stage: Stage, admin: WebSession) -> None:
    await (await approved(stage, admin, NAME)).close()
    options = {"image": IMAGE, "display_name": TITLE, "env": {"A": TEXT}, "secret_env": {"B": TEXT}}
    await stage.api("POST", f"/users/{NAME}/servers/evil", {"user_options": options}, expect=202)
    await stage.until_ready(NAME, "evil")
    await hostile_programs(stage)
    seen = await look_everywhere(stage)
    assert {"Ready", "Failed", "Preparing"} <= seen, seen


async def hostile_programs(stage: Stage) -> None:
    """What comes from inside workspaces and from clients, too."""

    async def ports(query: ListPorts) -> Ports:
        return Ports(ports=[Port(port=8000, program=TEXT)])

    await stage.bus.answer(LIST_PORTS, ListPorts, ports, node=NODE)
    for requester in (f"user:{NAME}", f"user:{TEXT}", f"service:{TEXT}"):
        session = OpenSession(
            id=f"s{len(requester)}",
            gateway="gateway1",
            requester=requester,
            workspace=workspace(NAME, "evil"),
            client=TEXT,
            method=TEXT,
            fingerprint=TEXT,
            opened_at=now(),
        )
        await stage.bus.sessions.put(session.id, session, ttl=timedelta(minutes=10))


async def look_everywhere(stage: Stage) -> set[str]:
    """Every page in every state, as the user and as an admin; the words of the states that were seen."""
    seen = set()
    async with browser() as chrome, visitor(chrome, stage.hub.url) as user, visitor(chrome, stage.hub.url) as boss:
        await user.login(NAME, PASSWORD)
        await boss.login("admin", ADMIN_PASSWORD)
        about = f"user={NAME}&server=evil"
        theirs = [
            f"home?user={NAME}",
            f"new-workspace?user={NAME}&name={TEXT}&display_name={TEXT}",
            f"spawn/{NAME}/evil",
            f"spawn-pending/{NAME}/evil",
            f"workspaces/ssh?{about}",
            f"workspaces/tools?{about}",
            "sessions",
            f"workspaces/confirm-update?{about}",
            f"workspaces/confirm-delete?{about}",
            f"spawn/{NAME}/evil?opt-image={TEXT}",
            f"home?user={TEXT}",
        ]
        for phase in (Phase.READY, Phase.PREPARING, Phase.FAILED):
            if phase is Phase.FAILED:
                await stage.worker.move(KEY, phase, reason=Reason.IMAGE, message=TEXT, log_tail=TEXT)
                await stage.until_gone(NAME, "evil")
            else:
                ends = now() + timedelta(days=1)
                spec = stage.worker.spawns_of(KEY)[-1].spec.model_copy(update={"image": TEXT, "profile": TEXT})
                message = f"Pulling image {TEXT}"
                await stage.worker.move(KEY, phase, message=message, progress=20, expires_at=ends, spec=spec)
            shown = theirs if phase is not Phase.PREPARING else theirs[:4]
            for someone in (user, boss):
                pages = shown + (["nodes", "approvals", "admin"] if someone is boss else ["account"])
                for path in pages:
                    await someone.go(f"/hub/{path}")
                    await someone.page.wait_for_timeout(150)
                    assert not await someone.page.evaluate("'owned' in window"), path
                    html = await someone.page.content()
                    assert "49');" not in html, f"{path}: a template was rendered twice"
                    if not path.startswith("admin"):
                        assert not [found for found in Active(html).found if found != "style"], path
                    for status in await someone.page.locator(".ml-status").all_text_contents():
                        seen.add(status.split()[0])
        await user.go("/hub/home")
        await expect(user.page.get_by_role("heading", level=2).nth(1)).to_have_text(TITLE)
        await expect(user.page.locator(".ml-failure pre")).to_have_text(TEXT)
        await user.picture("home-hostile", themes=("light",))
    return seen
