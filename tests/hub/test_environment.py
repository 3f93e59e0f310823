"""Whose word counts for a variable, from the profile and the form through hub and worker into the container."""

from pathlib import Path

import pytest

from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_shared.runtime.profiles import read_profiles
from mlhub_spawner_worker.backends.base import Job
from mlhub_spawner_worker.backends.environment import environment_for
from tests.hub.conftest import Stage
from tests.hub.images import images_environment

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROFILES = """
profiles:
  - name: plain
    image: registry.example/lab:1
  - name: own
    image: registry.example/lab:1
    env: {SHUTDOWN_INACTIVE_KERNELS: "3600", COLOUR: red}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return images_environment(tmp_path_factory.mktemp("profiles"), PROFILES, MLHUB_USER_MAX_CPU="100")


async def found(stage: Stage, environment: dict[str, str], server: str, body: dict[str, object]) -> dict[str, str]:
    """What the container of a workspace that is started so finds."""
    await stage.api("POST", f"/users/eva/servers/{server}", body, expect=202)
    await stage.until_ready("eva", server)
    name = f"ws-eva-test-{server}"
    record, secrets = await stage.worker.record(name), await stage.bus.secrets.get(name)
    assert isinstance(record, WorkspaceRecord)
    assert secrets is not None
    profiles = {profile.name: profile for profile in read_profiles(Path(environment["MLHUB_PROFILES_FILE"]))[0]}
    return environment_for(Job(record, secrets.value), profiles[record.spec.profile or "plain"])


async def test_people_overrule_the_profile_and_the_profile_what_is_usual(
    stage: Stage, environment: dict[str, str]
) -> None:
    await stage.user("eva")
    kernels = "SHUTDOWN_INACTIVE_KERNELS"
    assert (await found(stage, environment, "a", {"profile": "plain"}))[kernels] == "true"
    assert (await found(stage, environment, "b", {"profile": "own"}))[kernels] == "3600"
    chosen = {kernels: "false", "COLOUR": "blue", "AUTHENTICATE_VIA_JUPYTER": "false"}
    last = await found(stage, environment, "c", {"profile": "own", "env": chosen})
    assert (last[kernels], last["COLOUR"]) == ("false", "blue")
    assert last["AUTHENTICATE_VIA_JUPYTER"] == "true", "without it an image's tools are open to everybody"
    assert last["JUPYTERHUB_USER"] == "eva"
