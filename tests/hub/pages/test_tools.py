"""The dialog of what listens in a workspace."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from mlhub_hub.pages.tools import port_address
from mlhub_hub.settings import HubSettings
from mlhub_shared.contracts.queries import LIST_PORTS, ListPorts, Port, Ports
from mlhub_shared.contracts.workspace import Phase
from mlhub_shared.errors import Temporary
from tests.hub.conftest import Stage
from tests.hub.pages.conftest import approved
from tests.hub.web import WebSession
from tests.support.scripted_worker import NODE

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVIL = "<script>owned()</script>"


class Worker:
    """Says which ports listen."""

    def __init__(self) -> None:
        self.ports: list[Port] = []
        self.is_busy = False
        self.asked: list[ListPorts] = []

    async def answer(self, query: ListPorts) -> Ports:
        self.asked.append(query)
        if self.is_busy:
            raise Temporary("not now")
        return Ports(ports=self.ports)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker(stage: Stage) -> Worker:
    made = Worker()
    await stage.bus.answer(LIST_PORTS, ListPorts, made.answer, node=NODE)
    return made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def alice(stage: Stage, admin: WebSession) -> AsyncIterator[WebSession]:
    session = await approved(stage, admin, "alice")
    await stage.api("POST", "/users/alice/servers/gpu1", {"user_options": {}})
    await stage.until_ready("alice", "gpu1")
    yield session
    await session.close()


async def test_the_ports_lead_to_the_addresses_of_the_proxy(
    stage: Stage, alice: WebSession, admin: WebSession, worker: Worker
) -> None:
    worker.ports = [Port(port=5173, program="node"), Port(port=8000, program=EVIL)]
    worker.asked.clear()
    home = (await alice.get("home")).text
    assert "/hub/workspaces/tools?user=alice&amp;server=gpu1" in home
    assert not worker.asked, "the home page costs no worker anything"
    for someone in (alice, admin):
        page = (await someone.get("workspaces/tools", user="alice", server="gpu1")).text
        for port in (5173, 8000):
            assert f'href="/user/alice/gpu1/tools/{port}/"' in page
        assert "node" in page
        assert EVIL not in page
    assert {query.workspace.server for query in worker.asked} == {"gpu1"}


async def test_tools_of_the_image_are_offered_where_it_has_them(
    stage: Stage, alice: WebSession, worker: Worker
) -> None:
    name = "ws-alice-test-gpu1"
    spec = stage.worker.spawns_of(name)[-1].spec
    assert "tools/vscode/" not in (await alice.get("workspaces/tools", user="alice", server="gpu1")).text
    await stage.worker.move(name, Phase.READY, spec=spec.model_copy(update={"own_tools": True}))
    page = (await alice.get("workspaces/tools", user="alice", server="gpu1")).text
    for tool in ("vnc", "vscode", "ungit", "netdata", "glances"):
        assert f'href="/user/alice/gpu1/tools/{tool}/"' in page


async def test_an_image_with_an_ssh_server_of_its_own_leads_to_its_own_set_up(stage: Stage, alice: WebSession) -> None:
    name = "ws-alice-test-gpu1"
    link = "/user/alice/gpu1/tooling/ssh/setup-script?host=127.0.0.1&amp;port=2222&amp;download=true"
    assert "tooling/ssh" not in (await alice.get("workspaces/ssh", user="alice", server="gpu1")).text
    spec = stage.worker.spawns_of(name)[-1].spec
    await stage.worker.move(name, Phase.READY, spec=spec.model_copy(update={"own_ssh": True}))
    assert link in (await alice.get("workspaces/ssh", user="alice", server="gpu1")).text
    # By the host that people come by, where the settings know but this machine.
    alice.http.headers["Host"] = "hub.example.org"
    page = (await alice.get("workspaces/ssh", user="alice", server="gpu1")).text
    del alice.http.headers["Host"]
    assert "ssh -p 2222 alice--gpu1@hub.example.org" in page
    assert "host=hub.example.org&amp;" in page


async def test_a_worker_that_does_not_answer_and_a_workspace_that_is_stopped_are_said(
    stage: Stage, alice: WebSession, worker: Worker
) -> None:
    worker.is_busy = True
    page = (await alice.get("workspaces/tools", user="alice", server="gpu1")).text
    assert "does not say just now" in page
    assert 'name="port"' in page
    worker.is_busy, worker.asked = False, []
    assert "It is not running" in (await alice.get("workspaces/tools", user="alice", server="")).text
    assert not worker.asked


async def test_a_port_that_is_typed_in_is_opened_and_nothing_else(
    stage: Stage, alice: WebSession, admin: WebSession
) -> None:
    where = {"user": "alice", "server": "gpu1"}
    answer = await alice.get("workspaces/port", **where, port="8888")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/user/alice/gpu1/tools/8888/")
    default = await alice.get("workspaces/port", user="alice", server="", port="80")
    assert default.headers["Location"] == "/user/alice/tools/80/"
    for port in ("", "0", "65536", "80/../..", "//evil.example", "٣", "-1", "9" * 5000):
        assert (await alice.get("workspaces/port", **where, port=port)).status_code == 400, port
    assert (await alice.get("workspaces/port", user="alice", server="none", port="80")).status_code == 404
    stranger = await approved(stage, admin, "mallory")
    for path in ("workspaces/port", "workspaces/tools"):
        assert (await stranger.get(path, **where, port="80")).status_code == 404
    await stranger.close()


async def test_with_a_domain_for_tools_a_port_is_a_site_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLHUB_PROXY_TOOLS_DOMAIN", "tools.example")
    for public, start, end in (
        ("https://hub.example", "https://", "/"),
        ("http://hub.example:8443", "http://", ":8443/"),
    ):
        settings = HubSettings(public_url=public)
        for port in (5173, "PORT"):
            site = f"{start}{port}--ws-alice-test.tools.example{end}"
            assert port_address(settings, "ws-alice-test", port, below="/user/alice/") == site
        # What does not fit into one label has the path alone.
        fits = "x" * 57
        assert port_address(settings, f"{fits}x", 5173, below="/user/alice/") == "/user/alice/tools/5173/"
        assert "//5173--x" in port_address(settings, fits, 5173, below="/user/alice/")
