"""One deployment for the tests of a module: starting one is what takes the time."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.compose import ComposeStack, missing, running_compose

ARTEFACTS = Path(__file__).parents[2] / "artefacts"
"""Logs of the last run; not kept by git."""


@pytest.fixture(scope="module")
def compose_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    """ML Hub by `docker compose up`, with workspaces of JupyterLab and some that start in no time."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with running_compose(tmp_path_factory.mktemp("compose")) as stack:
        yield stack


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what the services logged where a test failed."""
    report = yield
    stacks = [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, ComposeStack)]
    if report.failed and stacks:
        ARTEFACTS.mkdir(exist_ok=True)
        (ARTEFACTS / f"{item.name}.log").write_text(stacks[0].report())
    return report
