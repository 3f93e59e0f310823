"""One stack for each module: starting it is what takes the time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import FAKE_SERVER, Stack, running_stack

ARTEFACTS = Path(__file__).parents[2] / "artefacts"
"""Screenshots and logs of the last run; not kept by git."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with JupyterLab as its workspaces, that looks at their activity all the time."""
    folder = tmp_path_factory.mktemp("stack")
    config = folder / "jupyterhub_user_config.py"
    config.write_text("c.JupyterHub.last_activity_interval = 1\n")
    with running_stack(folder, MLHUB_HUB_USER_CONFIG=str(config), MLHUB_PROXY_ACTIVITY_INTERVAL="1") as stack:
        yield stack


@pytest.fixture(scope="module")
def quick_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose workspaces start in no time, with room for two."""
    folder = tmp_path_factory.mktemp("quick")
    with running_stack(folder, "--capacity", "2", MLHUB_SPAWNER_WORKER_COMMAND=FAKE_SERVER) as stack:
        yield stack


@pytest.fixture(autouse=True)
def _logs_of_a_failure(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the services logged, where a test failed."""
    failed = request.session.testsfailed
    yield
    for name in ("stack", "quick_stack", "own_stack"):
        if request.session.testsfailed > failed and name in request.fixturenames:
            ARTEFACTS.mkdir(exist_ok=True)
            (ARTEFACTS / f"{request.node.name}.log").write_text(request.getfixturevalue(name).report())
