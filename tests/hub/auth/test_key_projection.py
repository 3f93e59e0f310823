"""SSH keys from the page to the bus, where the gateway finds them."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from mlhub_hub.auth.ssh_keys import parse
from mlhub_shared.contracts.services import SshKey, ssh_key_key
from tests.hub.conftest import Stage
from tests.hub.web import WebSession
from tests.support.hub_process import ADMIN_PASSWORD
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "a rather long one"


@pytest.fixture
def key(tmp_path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "laptop", "-f", tmp_path / "key"], check=True)
    return (tmp_path / "key.pub").read_text()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def admin(stage: Stage) -> AsyncIterator[WebSession]:
    session = WebSession(stage.hub.url)
    await session.login("admin", ADMIN_PASSWORD)
    yield session
    await session.close()


async def a_user(stage: Stage, admin: WebSession, name: str) -> WebSession:
    session = WebSession(stage.hub.url)
    await session.sign_up(name, PASSWORD)
    await admin.post("approvals", name=name, decision="approve")
    assert (await session.login(name, PASSWORD)).status_code == 302
    return session


async def on_the_bus(stage: Stage, key: str) -> SshKey | None:
    entry = await stage.bus.ssh_keys.get(ssh_key_key(parse(key).fingerprint))
    return entry.value if entry else None


async def until_on_the_bus(stage: Stage, key: str, *, there: bool) -> None:
    async def as_expected() -> bool:
        return (await on_the_bus(stage, key) is not None) is there

    await until_async(as_expected)


async def test_a_key_goes_to_the_bus_and_away_again(stage: Stage, admin: WebSession, key: str) -> None:
    web = await a_user(stage, admin, "alice")
    assert (await web.post("ssh-keys", action="add", public_key=key, label="my <laptop>")).status_code == 302
    await until_on_the_bus(stage, key, there=True)
    found = await on_the_bus(stage, key)
    assert found is not None
    fingerprint = parse(key).fingerprint
    assert (found.user, found.label, found.fingerprint) == ("alice", "my <laptop>", fingerprint)
    page = (await web.get("ssh-keys")).text
    assert "my &lt;laptop&gt;" in page
    assert fingerprint.replace("+", "&#43;") in page or fingerprint in page
    assert (await web.post("ssh-keys", action="remove", fingerprint=fingerprint)).status_code == 302
    await until_on_the_bus(stage, key, there=False)
    await web.close()


async def test_withdrawn_approval_takes_the_keys_away_and_a_new_one_brings_them_back(
    stage: Stage, admin: WebSession, key: str
) -> None:
    web = await a_user(stage, admin, "bob")
    await web.post("ssh-keys", action="add", public_key=key)
    await until_on_the_bus(stage, key, there=True)
    await admin.post("approvals", name="bob", decision="reject")
    await until_on_the_bus(stage, key, there=False)
    await admin.post("approvals", name="bob", decision="approve")
    await until_on_the_bus(stage, key, there=True)
    await web.close()


async def test_a_deleted_users_keys_are_nobodys(stage: Stage, admin: WebSession, key: str) -> None:
    web = await a_user(stage, admin, "carol")
    await web.post("ssh-keys", action="add", public_key=key)
    await until_on_the_bus(stage, key, there=True)
    await stage.api("DELETE", "/users/carol", expect=204)
    await until_on_the_bus(stage, key, there=False)
    await web.close()
    other = await a_user(stage, admin, "carol")
    assert "You have no key here yet" in (await other.get("ssh-keys")).text
    await other.close()


async def test_the_key_of_another_is_refused_without_a_word_about_whose_it_is(
    stage: Stage, admin: WebSession, key: str
) -> None:
    one, two = await a_user(stage, admin, "dave"), await a_user(stage, admin, "mallory")
    await one.post("ssh-keys", action="add", public_key=key)
    answer = await two.post("ssh-keys", action="add", public_key=key)
    assert answer.status_code == 400
    assert "dave" not in answer.text
    await two.post("ssh-keys", action="remove", fingerprint=parse(key).fingerprint)
    assert "laptop" in (await one.get("ssh-keys")).text
    again = await one.post("ssh-keys", action="add", public_key=key)
    assert "You have added this key already" in again.text
    await asyncio.gather(one.close(), two.close())


async def test_a_private_key_does_not_come_back_in_the_page(stage: Stage, admin: WebSession, tmp_path: Path) -> None:
    web = await a_user(stage, admin, "erin")
    private = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n-----END OPENSSH PRIVATE KEY-----"
    answer = await web.post("ssh-keys", action="add", public_key=private)
    assert answer.status_code == 400
    assert "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU" not in answer.text
    assert "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU" not in stage.hub.log.read_text()
    await web.close()


async def test_the_bucket_is_mended_whatever_happens_to_it(stage: Stage, admin: WebSession, key: str) -> None:
    web = await a_user(stage, admin, "frank")
    await web.post("ssh-keys", action="add", public_key=key)
    await until_on_the_bus(stage, key, there=True)
    genuine = await on_the_bus(stage, key)
    assert genuine is not None
    name = ssh_key_key(genuine.fingerprint)

    await stage.bus.ssh_keys.delete(name)
    await until_on_the_bus(stage, key, there=True)
    await stage.bus.ssh_keys.put(name, genuine.model_copy(update={"user": "admin"}))

    async def is_genuine() -> bool:
        return await on_the_bus(stage, key) == genuine

    await until_async(is_genuine)
    forged = genuine.model_copy(update={"fingerprint": "SHA256:forged", "user": "admin"})
    await stage.bus.ssh_keys.put("forged", forged)

    async def is_gone() -> bool:
        return await stage.bus.ssh_keys.get("forged") is None

    await until_async(is_gone)
    await web.close()


async def test_a_key_may_come_as_a_file(stage: Stage, admin: WebSession, key: str, tmp_path: Path) -> None:
    web = await a_user(stage, admin, "gina")
    xsrf = (await web.get("ssh-keys")).text.split('name="_xsrf" value="')[1].split('"')[0]
    form = {"_xsrf": xsrf, "action": "add", "public_key": "", "label": ""}

    async def send(content: str) -> httpx.Response:
        return await web.http.post("/hub/ssh-keys", data=form, files={"key_file": ("id.pub", content)})

    assert (await send(key)).status_code == 302
    await until_on_the_bus(stage, key, there=True)
    private = (tmp_path / "key").read_text()
    refused = await send(private)
    assert refused.status_code == 400
    assert "private key" in refused.text
    assert private.splitlines()[1] not in refused.text
    assert (await send("")).status_code == 400
    await web.close()
