"""Ports of workspaces through the proxy: who gets there, and what reaches them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.proxy.toolhouse import TOOL, House, running_house

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One for all tests of the module; each takes users of its own."""
    async with running_house(tmp_path_factory.mktemp("house")) as made:
        yield made


async def test_an_owner_reaches_a_port_of_a_workspace_below_its_prefix(house: House) -> None:
    prefix = await house.open("owner", "lab")
    answer = await house.ask(f"{prefix}tools/{TOOL}/some/page?x=1", await house.token("owner"))
    assert answer.status == 200, answer
    assert (answer.said["name"], answer.said["path"]) == ("tool", "/some/page?x=1")
    assert answer.said["headers"]["x-forwarded-prefix"] == f"{prefix}tools/{TOOL}"
    assert answer.said["headers"]["x-forwarded-user"] == "owner"


async def test_a_browser_is_led_to_the_login_and_back(house: House) -> None:
    async with house.browser("walker") as browser:
        prefix = await house.open("walker", "lab")
        answer = await browser.visit(f"{prefix}tools/{TOOL}/page?x=1")
        assert answer.status_code == 200, (answer.url, answer.text)
        assert answer.json()["path"] == "/page?x=1"
