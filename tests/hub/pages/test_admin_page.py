"""JupyterHub's own page for administrators."""

from pathlib import Path

import pytest

from tests.hub.conftest import make_stage
from tests.hub.images import images_environment
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("has_images", [False, True])
async def test_it_says_what_goes_with_a_user(tmp_path: Path, has_images: bool) -> None:
    environment = images_environment(tmp_path) if has_images else {"MLHUB_KEEP_VOLUMES_DAYS": "7"}
    async for stage in make_stage(tmp_path, **environment):
        admin = WebSession(stage.hub.url)
        await admin.login("admin", ADMIN_PASSWORD)
        said = " ".join((await admin.get("admin")).text.split())
        assert "Deleting a user deletes all of the user's workspaces with all files in them" in said
        assert ("; their volumes are kept for another 7 days." in said) is has_images
        await admin.close()
