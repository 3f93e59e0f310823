"""Few stacks for many tests: starting one is what takes the time."""

import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.stack import FAKE_SERVER, Stack, running_stack

ARTEFACTS = Path(__file__).parents[2] / "artefacts"
"""Screenshots and logs of the last run; not kept by git."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """As many seeds as asked for; one that is named on the command line is among them."""
    if "seed" in metafunc.fixturenames:
        seeds = set(range(1, metafunc.config.getoption("--chaos-seeds") + 1))
        seeds |= {int(seed) for word in metafunc.config.args for seed in re.findall(r"seed-(\d+)\]", word)}
        metafunc.parametrize("seed", sorted(seeds), ids=lambda seed: f"seed-{seed}")


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


@pytest.fixture(scope="session")
def quick_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose workspaces start in no time, with room for two; each test leaves it empty."""
    folder = tmp_path_factory.mktemp("quick")
    with running_stack(folder, "--capacity", "2", MLHUB_SPAWNER_WORKER_COMMAND=FAKE_SERVER) as stack:
        yield stack


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what the services logged where a test failed."""
    report = yield
    stacks = [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Stack)]
    if report.failed and stacks:
        ARTEFACTS.mkdir(exist_ok=True)
        (ARTEFACTS / f"{item.name}.log").write_text(stacks[0].report())
    return report
