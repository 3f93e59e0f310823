"""The one-time set-up of a computer: the very line that the page shows, run by the shell."""

import asyncio
import html
import os
import re
import shlex
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from mlhub_hub.auth.ssh_keys import parse
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.services import ProxyState, SshKey, ssh_key_key
from mlhub_shared.contracts.subjects import NO_WORKSPACE
from tests.hub.conftest import Stage, make_stage
from tests.hub.pages.conftest import approved
from tests.hub.pages.test_ssh import HOST_KEY
from tests.hub.web import WebSession
from tests.support.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

_COMMAND = re.compile(r'<pre id="setup-command"[^>]*>([^<]*)</pre>')

KEY, ALIAS = "mlhub_test_ed25519", "ws-alice-test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    shown = {"MLHUB_HUB_SSH_HOST_KEY": HOST_KEY, "MLHUB_HUB_SSH_HOST": "hub.example.org"}
    async for made in make_stage(tmp_path_factory.mktemp("hub"), **shown):
        yield made


def understood(config: Path, alias: str) -> list[str]:
    """What OpenSSH reads in a configuration."""
    command = ["ssh", "-G", "-F", str(config), alias]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def keygen(key: Path, *arguments: str) -> str:
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", key, *arguments], check=True)
    return key.with_name(f"{key.name}.pub").read_text()


async def ask(web: WebSession, user: str, server: str = "", **headers: str) -> httpx.Response:
    """Press the button in the dialog."""
    dialog = await web.get("workspaces/ssh", user=user, server=server)
    assert "Set up this computer" in dialog.text
    web.http.headers.update(headers)
    form = f"workspaces/ssh?user={user}&server={server}"
    return await web.post("workspaces/ssh-setup", form=form, user=user, server=server)


async def command_for(web: WebSession, user: str, server: str = "") -> str:
    found = _COMMAND.search((await ask(web, user, server)).text)
    assert found is not None
    return html.unescape(found[1])


def token_in(command: str) -> str:
    found = re.search(r"/ssh-setup/([^/]+)/script", command)
    assert found is not None
    return found[1]


async def run(command: str, home: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        command,
        cwd=home,
        env={"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def registered(stage: Stage, line: str) -> SshKey | None:
    key = ssh_key_key(parse(line).fingerprint)

    async def is_there() -> bool:
        return await stage.bus.ssh_keys.get(key) is not None

    await until_async(is_there)
    entry = await stage.bus.ssh_keys.get(key)
    return entry.value if entry else None


async def events_since(stage: Stage, since: datetime, count: int) -> list[Event]:
    seen: list[Event] = []
    async with asyncio.timeout(30), aclosing(stage.bus.replay(NO_WORKSPACE, since=since)) as replay:
        async for event in replay:
            if event.kind is EventKind.SSH_KEY_ADDED:
                seen.append(event)
            if len(seen) == count:
                break
    return seen


async def test_one_line_makes_a_key_registers_it_and_tells_openssh_where_to_go(
    stage: Stage, admin: WebSession, tmp_path: Path
) -> None:
    since, web = datetime.now(UTC), await approved(stage, admin, "alice")
    command = await command_for(web, "alice")
    status, output = await run(command, tmp_path)
    assert status == 0, output
    folder = tmp_path / ".ssh"
    line = (folder / f"{KEY}.pub").read_text()
    key = await registered(stage, line)
    assert key is not None
    assert key.user == "alice"
    assert key.label == line.split(None, 2)[2].strip()
    assert (folder / KEY).stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [".ssh"]

    assert (folder / "config").read_text().startswith("# Workspaces of ML Hub\nInclude ~/.ssh/mlhub/*.conf\n")
    shown = understood(folder / "mlhub" / f"{ALIAS}.conf", ALIAS)
    assert {"user alice", "hostname hub.example.org", "port 2222", "identitiesonly yes"} <= set(shown)
    assert f"identityfile ~/.ssh/{KEY}" in shown
    kind, blob = HOST_KEY.split()[:2]
    assert (folder / "known_hosts").read_text() == f"[hub.example.org]:2222 {kind} {blob}\n"

    [event] = await events_since(stage, since, 1)
    assert (event.user, event.detail["how"], event.detail["fingerprint"]) == ("alice", "setup", parse(line).fingerprint)

    status, output = await run(command, tmp_path)
    assert status != 0, "it works once"
    token = token_in(command)
    assert token not in event.model_dump_json()
    assert token not in stage.hub.log.read_text()
    assert "/hub/ssh-setup/.../script" in stage.hub.log.read_text()
    for file in (stage.hub.folder / "data").iterdir():
        assert token.encode() not in file.read_bytes(), file
    await web.close()


async def test_what_was_there_stays_and_a_second_set_up_adds_only_what_is_new(
    stage: Stage, admin: WebSession, tmp_path: Path
) -> None:
    web = await approved(stage, admin, "bob")
    await stage.api("PUT", "/users/bob/servers/gpu1", {"user_options": {}}, expect=201)
    folder = tmp_path / ".ssh"
    folder.mkdir(mode=0o700)
    theirs = "ServerAliveInterval 60\nHost *\n    User somebody\n"
    (folder / "config").write_text(theirs)
    stale = "[hub.example.org]:2222 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    (folder / "known_hosts").write_text(f"other.example {stale.split(' ', 1)[1]}\n{stale}")
    for server in ("", "gpu1", "gpu1"):
        status, output = await run(await command_for(web, "bob", server), tmp_path)
        assert status == 0, output
    config = (folder / "config").read_text()
    assert config.endswith(theirs)
    assert config.count("Include") == 1
    known = (folder / "known_hosts").read_text().splitlines()
    assert known == [f"other.example {stale.split(' ', 1)[1]}", f"[hub.example.org]:2222 {HOST_KEY.rsplit(' ', 1)[0]}"]
    assert sorted(path.name for path in (folder / "mlhub").iterdir()) == ["ws-bob-test-gpu1.conf", "ws-bob-test.conf"]
    assert (await web.get("ssh-keys")).text.count("not used yet") == 1
    # What stands further down in somebody's file must not win.
    local = tmp_path / "local"
    local.write_text(config.replace("~/.ssh", str(folder)))
    shown = understood(local, "ws-bob-test-gpu1")
    assert "user bob--gpu1" in shown
    assert "serveraliveinterval 60" in shown
    await web.close()


async def test_an_admin_is_set_up_with_a_key_of_his_own_for_anybodys_workspace(
    stage: Stage, admin: WebSession, tmp_path: Path
) -> None:
    await (await approved(stage, admin, "carol")).close()
    assert "<strong>your own</strong> keys" in (await admin.get("workspaces/ssh", user="carol", server="")).text
    status, output = await run(await command_for(admin, "carol"), tmp_path)
    assert status == 0, output
    key = await registered(stage, (tmp_path / ".ssh" / f"{KEY}.pub").read_text())
    assert key is not None
    assert key.user == "admin"
    assert "User carol" in (tmp_path / ".ssh" / "mlhub" / "ws-carol-test.conf").read_text()


async def test_the_newest_line_of_its_user_is_the_only_one_and_a_stranger_gets_none(
    stage: Stage, admin: WebSession, tmp_path: Path
) -> None:
    web, other = await approved(stage, admin, "dave"), await approved(stage, admin, "mallory")
    one, two = tmp_path / "one", tmp_path / "two"
    for home in (one, two):
        home.mkdir()
    first, second = [await command_for(web, "dave") for _ in range(2)]
    assert (await run(first, one))[0] != 0
    theirs = "workspaces/ssh?user=mallory&server="
    assert (await other.post("workspaces/ssh-setup", form=theirs, user="dave", server="")).status_code == 404
    async with httpx.AsyncClient(base_url=stage.hub.url) as client:
        assert (await client.post("/hub/workspaces/ssh-setup", data={"user": "dave"})).status_code == 403
        assert (await client.get("/hub/ssh-setup/guessed/script")).status_code == 404
        assert (await client.post("/hub/ssh-setup/guessed", content=HOST_KEY)).status_code == 404
    await admin.post("approvals", name="dave", decision="reject")
    assert (await run(second, two))[0] != 0
    await asyncio.gather(web.close(), other.close())


async def test_what_is_no_key_is_refused_in_a_sentence_and_does_not_use_the_token_up(
    stage: Stage, admin: WebSession, tmp_path: Path
) -> None:
    web = await approved(stage, admin, "erin")
    token = token_in(await command_for(web, "erin"))
    short = keygen(tmp_path / "weak", "-t", "rsa", "-b", "2048")
    async with httpx.AsyncClient(base_url=f"{stage.hub.url}/hub/ssh-setup/", timeout=30) as client:
        weak = await client.post(token, content=short)
        assert weak.status_code == 400
        assert "needs at least 3072" in weak.text
        private = await client.post(token, content=(tmp_path / "weak").read_text())
        assert private.status_code == 400
        assert "private key" in private.text
        good = keygen(tmp_path / "good", "-t", "ed25519")
        both = await asyncio.gather(*(client.post(token, content=good) for _ in range(5)))
        assert sorted(answer.status_code for answer in both) == [201, 404, 404, 404, 404]
    answer = next(answer for answer in both if answer.status_code == 201)
    assert "Host ws-erin-test\n    HostName hub.example.org" in answer.text
    assert f"[hub.example.org]:2222 {HOST_KEY.split()[0]}" in answer.text
    await web.close()


async def test_who_reaches_the_gateway_by_another_address_says_so(stage: Stage, admin: WebSession) -> None:
    web = await approved(stage, admin, "frank")
    token = token_in(await command_for(web, "frank"))
    async with httpx.AsyncClient(base_url=f"{stage.hub.url}/hub/ssh-setup/") as client:
        script = await client.get(f"{token}/script", params={"host": "10.0.0.7", "port": "22"})
        assert "HostName 10.0.0.7\n    Port 22\n" in script.text
        assert f"\nknown_host='10.0.0.7 {HOST_KEY.split()[0]}" in script.text
        assert f"/ssh-setup/{token}?host=10.0.0.7&port=22'" in script.text
        for host, port in [
            ("x;touch owned", "22"),
            ("$(id)", "22"),
            ("-oProxyCommand=id", "22"),
            ("a b", "22"),
            ("h\nProxyCommand id", "22"),
            ("hub.example", "22x"),
            ("hub.example", "0"),
            ("hub.example", "65536"),
            ("hub.example", "٣"),
            ("hub.example", "9" * 5000),
        ]:
            assert (await client.get(f"{token}/script", params={"host": host, "port": port})).status_code == 400
    await web.close()


async def test_without_encryption_only_this_very_machine_is_set_up(stage: Stage, admin: WebSession) -> None:
    web = await approved(stage, admin, "grace")
    assert "On this very computer that is safe" in (await ask(web, "grace")).text
    open_page = await ask(web, "grace", **{"Host": "hub.example.org", "Origin": "http://hub.example.org"})
    assert open_page.status_code == 200
    assert "setup-command" not in open_page.text
    assert "without encryption" in open_page.text
    secure = await ask(web, "grace", **{"X-Forwarded-Proto": "https", "Origin": "https://hub.example.org"})
    found = _COMMAND.search(secure.text)
    assert found is not None
    words = shlex.split(html.unescape(found[1]))
    assert words[1].startswith('url="https://hub.example.org/hub/ssh-setup/')
    assert words[-1] == 's=$(curl -fsS --proto =https -K -) && eval "$s"'
    pin = f"sha256//{'A' * 43}="
    state = ProxyState(replica="proxy9", workspaces_revision=1_000_000, tls_pin=pin)
    await stage.bus.proxies.put("proxy9", state, ttl=timedelta(minutes=1))

    async def is_pinned() -> bool:
        page = await ask(web, "grace")
        command = shlex.split(html.unescape(_COMMAND.findall(page.text)[0]))
        return f" --insecure --pinnedpubkey {pin} -K -" in command[-1]

    await until_async(is_pinned)
    await stage.bus.proxies.delete("proxy9")
    token = token_in(await command_for(web, "grace"))
    async with httpx.AsyncClient(base_url=stage.hub.url, headers={"Host": "hub.example.org"}) as client:
        assert (await client.get(f"/hub/ssh-setup/{token}/script")).status_code == 403
    await web.close()
