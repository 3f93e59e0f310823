"""People in front of the pages."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from mlhub_shared.contracts.queries import EXTEND_WORKSPACE, ExtendWorkspace
from mlhub_shared.contracts.workspace import WorkspaceRecord
from tests.hub.conftest import Stage, make_stage
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD
from tests.support.scripted_worker import NODE

PASSWORD = "a rather long one"


async def answer_extensions(stage: Stage) -> None:
    """Write a new expiry into the record, as a worker does."""

    async def extend(query: ExtendWorkspace) -> WorkspaceRecord:
        entry = await stage.bus.workspaces.get(query.workspace.name)
        assert entry is not None
        assert entry.value.generation == query.generation
        record = entry.value.model_copy(update={"expires_at": query.expires_at})
        await stage.bus.workspaces.update(query.workspace.name, record, last=entry.revision)
        return record

    await stage.bus.answer(EXTEND_WORKSPACE, ExtendWorkspace, extend, node=NODE)


async def approved(stage: Stage, admin: WebSession, name: str, password: str = PASSWORD) -> WebSession:
    """A user who has signed up, was approved, and is logged in."""
    session = WebSession(stage.hub.url)
    await session.sign_up(name, password)
    await admin.post("approvals", name=name, decision="approve")
    assert (await session.login(name, password)).status_code == 302
    return session


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def admin(stage: Stage) -> AsyncIterator[WebSession]:
    session = WebSession(stage.hub.url)
    assert (await session.login("admin", ADMIN_PASSWORD)).status_code == 302
    yield session
    await session.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A hub with a policy, so that there is something to refuse."""
    policy = {"MLHUB_MAX_CPU": "8", "MLHUB_MAX_MEM": "32G", "MLHUB_MAX_DAYS_TO_LIVE": "7"}
    async for made in make_stage(tmp_path_factory.mktemp("hub"), **policy):
        await answer_extensions(made)
        yield made


def now() -> datetime:
    return datetime.now(UTC)
