"""Options: one rule for form, link and REST, and secrets that nobody sees."""

import json
import sqlite3
from typing import Any

import pytest

from tests.hub.browser import browser_of
from tests.hub.conftest import Stage
from tests.hub.web import field_error

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = "canary-7c1e9a"

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"cpu_limit": 99}, "cpu_limit: must be at most 4 cores"),
    ({"cpu_limit": "many"}, "cpu_limit: "),
    ({"cpu_limit": -1}, "cpu_limit: "),
    ({"mem_limit": "9G"}, "mem_limit: must be at most"),
    ({"mem_limit": "lots"}, "mem_limit: must be a size such as 2G or 512M"),
    ({"days_to_live": -2}, "days_to_live: "),
    ({"env": {"1X": "y"}}, "env: '1X' is not a name"),
    ({"env": {"JUPYTERHUB_API_TOKEN": "y"}}, "JUPYTERHUB_API_TOKEN is set by the hub"),
    ({"env": "A=b"}, "env: "),
    ({"env": {"A": "x" * 1_000_000}}, "must be at most 64 KiB"),
    ({"secret_env": {"A": "x" * 1_000_000}}, "must be at most 64 KiB"),
    ({"image": "evil"}, "image: "),
    ({"gpus": "all"}, "gpus: "),
    ({"no_such_option": 1}, "no_such_option: is not an option"),
    ({"cpu_limit": {"$ne": 1}}, "cpu_limit: "),
]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {"MLHUB_MAX_CPU": "4", "MLHUB_MAX_MEM": "8G"}


@pytest.mark.parametrize(("options", "sentence"), REFUSED, ids=lambda value: str(value)[:30])
async def test_what_nobody_may_have_is_refused_with_a_sentence(
    stage: Stage, options: dict[str, Any], sentence: str
) -> None:
    if await stage.api.status("GET", "/users/rob") == 404:
        await stage.user("rob")
    for method, body in [("POST", options), ("POST", {"user_options": options}), ("PUT", {"user_options": options})]:
        answer = await stage.api(method, "/users/rob/servers/x", body, expect=400)
        assert sentence in answer["message"], answer
    # Nothing was kept of it: not even the name.
    assert await stage.api.status("GET", "/users/rob/servers/x") == 404
    assert not [command for command in stage.worker.commands if command.workspace.user == "rob"]


async def test_a_patch_is_held_to_the_same_rules(stage: Stage) -> None:
    await stage.user("pia")
    await stage.api("PUT", "/users/pia/servers/x", {"user_options": {"cpu_limit": 1}}, expect=201)
    await stage.api("PATCH", "/users/pia/servers/x", {"user_options": {"cpu_limit": 99}}, expect=400)
    model = await stage.api("GET", "/users/pia/servers/x", expect=200)
    assert model["user_options"] == {"cpu_limit": 1}
    await stage.api("PATCH", "/users/pia/servers/x", {"user_options": {"cpu_limit": 3}}, expect=200)
    await stage.api("POST", "/users/pia/servers/x", expect=202)
    await stage.until_ready("pia", "x")
    assert stage.worker.spawns_of("ws-pia-test-x")[0].spec.cpu_limit == 3


async def test_a_link_fills_in_the_form_and_neither_starts_nor_keeps_anything(stage: Stage) -> None:
    await stage.user("lin")
    await stage.api("PUT", "/users/lin/servers/x", {"user_options": {"cpu_limit": 2}}, expect=201)
    link = "opt-cpu_limit=3&opt-mem_limit=512M&opt-env=A%3Db%3Dc%0AB%3D&opt-secret_env=S%3Dhush&cpu_limit=1"
    async with browser_of(stage) as browser:
        for path in ("spawn/lin/x", "spawn/lin", "new-workspace?user=lin&name=y"):
            page = await browser.get(f"/hub/{path}{'&' if '?' in path else '?'}{link}")
            assert page.status_code == 200, page.text
            for field in ('id="cpu_limit" name="cpu_limit"', 'value="3"', 'value="0.5"', 'value="b=c"', 'value="hush"'):
                assert field in page.text, (path, field)
            assert "nothing is started or kept before you press a button" in page.text
        moved = await browser.get(f"/hub/spawn/lin/y?{link}")
        assert moved.headers["location"].startswith("/hub/new-workspace?user=lin&name=y&opt-cpu_limit=3&")
        model = await stage.api("GET", "/users/lin?include_stopped_servers", expect=200)
        assert {name: server["user_options"] for name, server in model["servers"].items() if name} == {
            "x": {"cpu_limit": 2}
        }
        assert not [command for command in stage.worker.commands if command.workspace.user == "lin"]
        # Only the button does, and what its address names counts no more than what its form says.
        form = {"cpu_limit": "1", "_xsrf": browser.cookies["_xsrf"]}
        assert (await browser.post(f"/hub/spawn/lin/x?{link}", data={"cpu_limit": "1"})).status_code == 403
        answer = await browser.post(f"/hub/spawn/lin/x?{link}", data=form)
        assert (answer.status_code, answer.headers["location"]) == (302, "/hub/spawn-pending/lin/x?cpu_limit=1")
    await stage.until_ready("lin", "x")
    spec = stage.worker.spawns_of("ws-lin-test-x")[-1].spec
    assert (spec.cpu_limit, spec.mem_limit, spec.env, spec.secret_env) == (1, 8 * 1024**3, {}, ())


async def test_a_link_to_what_nobody_may_have_shows_where(stage: Stage) -> None:
    await stage.user("luc")
    link = "opt-cpu_limit=99&opt-env=JPY_X%3D1&opt-image=evil&opt-display_name=a%07b&opt-no_such=1&opt-update=true"
    async with browser_of(stage) as browser:
        answer = await browser.get(f"/hub/spawn/luc?{link}")
    assert answer.status_code == 400
    assert field_error(answer.text, "cpu_limit") == "Must be at most 4 cores."
    assert field_error(answer.text, "env") == "JPY_X is set by the hub."
    assert "At most 64 letters" in str(field_error(answer.text, "display_name"))
    assert "The link asks for what there is not on this page: no_such, update." in answer.text
    model = await stage.api("GET", "/users/luc?include_stopped_servers", expect=200)
    assert model["servers"].get("", {}).get("user_options") is None
    assert not stage.worker.spawns_of("ws-luc-test")


async def test_a_link_of_what_is_not_there_says_so_and_one_to_what_runs_leads_there(stage: Stage) -> None:
    await stage.user("liv")
    async with browser_of(stage) as browser:
        answer = await browser.get("/hub/spawn/liv?opt-image=evil&opt-cpu_limit=2")
        assert "This backend runs no images." in answer.text
        await stage.api("POST", "/users/liv/server", expect=202)
        await stage.until_ready("liv")
        answer = await browser.get("/hub/spawn/liv?opt-cpu_limit=2")
        assert (answer.status_code, answer.headers["location"]) == (302, "/user/liv/")


async def test_a_default_server_takes_the_same_options(stage: Stage) -> None:
    await stage.user("dan")
    await stage.api("POST", "/users/dan/server", {"cpu_limit": "1.5", "days_to_live": 0.5}, expect=202)
    await stage.until_ready("dan")
    spec = stage.worker.spawns_of("ws-dan-test")[0].spec
    assert spec.cpu_limit == 1.5
    assert spec.lifetime is not None
    assert spec.lifetime.total_seconds() == 12 * 3600


async def test_secret_values_stay_over_stop_and_start_until_they_are_taken_away(stage: Stage) -> None:
    await stage.user("sec")
    name = "ws-sec-test-x"
    await stage.api("POST", "/users/sec/servers/x", {"secret_env": {"A": "1", "B": "2"}}, expect=202)
    await stage.until_ready("sec", "x")
    await stage.api("DELETE", "/users/sec/servers/x", expect=204)
    await stage.hub.kill()
    await stage.hub.start()
    await stage.api("POST", "/users/sec/servers/x", expect=202)
    await stage.until_ready("sec", "x")
    entry = await stage.bus.secrets.get(name)
    assert entry is not None
    assert entry.value.secret_env == {"A": "1", "B": "2"}
    assert entry.value.generation == stage.worker.spawns_of(name)[-1].generation
    await stage.api("DELETE", "/users/sec/servers/x", expect=204)
    await stage.api("POST", "/users/sec/servers/x", {"secret_env": {"A": None}}, expect=202)
    await stage.until_ready("sec", "x")
    entry = await stage.bus.secrets.get(name)
    assert entry is not None
    assert entry.value.secret_env == {"A": "1"}


async def test_a_secret_whose_value_is_unknown_is_asked_for_again(stage: Stage) -> None:
    await stage.user("una")
    await stage.api("POST", "/users/una/servers/x", {"secret_env": {"A": None}}, expect=202)
    async with stage.api.progress("una", "x") as progress:
        messages = await progress.to_end()
    assert "the value of A is not known, enter it again" in messages[-1]["message"]
    assert not stage.worker.spawns_of("ws-una-test-x")


async def test_no_secret_is_seen_anywhere_but_in_its_bucket(stage: Stage) -> None:
    await stage.user("can")
    secret = {"MY_PASSWORD": CANARY, "PLAIN": "public"}
    await stage.api("PUT", "/users/can/servers/a", {"user_options": {"env": secret}}, expect=201)
    await stage.api("PATCH", "/users/can/servers/a", {"user_options": {"env": secret}}, expect=200)
    await stage.api("POST", "/users/can/servers/a", {"user_options": {"env": secret}}, expect=202)
    await stage.until_ready("can", "a")
    await stage.api("POST", "/users/can/server", {"secret_env": {"TOK": CANARY}}, expect=202)
    await stage.until_ready("can")
    model = await stage.api("GET", "/users/can?include_stopped_servers", expect=200)
    assert CANARY not in json.dumps(model)
    assert model["servers"]["a"]["user_options"] == {"env": {"PLAIN": "public"}, "secret_env": {"MY_PASSWORD": None}}
    for name in ("ws-can-test-a", "ws-can-test"):
        entry = await stage.bus.secrets.get(name)
        assert entry is not None
        assert CANARY in entry.value.secret_env.values()
    # It would be found if it were there.
    assert "public" in _database_text(stage)
    assert CANARY not in _database_text(stage)
    assert not [file.name for file in (stage.hub.folder / "data").iterdir() if CANARY.encode() in file.read_bytes()]
    assert CANARY not in stage.hub.log.read_text()
    subjects = stage.bus.subjects
    for stream in (subjects.commands, subjects.events, f"KV_{subjects.workspaces}", subjects.dead):
        assert not await _messages_with(stage, stream, CANARY.encode())


async def test_a_query_with_secrets_is_not_logged(stage: Stage) -> None:
    async with browser_of(stage) as browser:
        await browser.get(f"/hub/home?token={CANARY}-in-query&opt-env=A={CANARY}-in-query")
        # Tornado and JupyterHub log what goes wrong in words of their own.
        refused = await browser.get(f"/hub/spawn/admin?opt-cpu_limit=99&opt-env=A={CANARY}-in-query")
        assert refused.status_code == 400
    answer = await stage.api("POST", f"/users/admin/server?x={CANARY}-in-query", {"cpu_limit": 99}, expect=400)
    assert answer["message"] == "cpu_limit: must be at most 4 cores"
    assert "/hub/api/users/admin/server?..." in stage.hub.log.read_text()
    assert f"{CANARY}-in-query" not in stage.hub.log.read_text()


def _database_text(stage: Stage) -> str:
    database = sqlite3.connect(stage.hub.folder / "data" / "jupyterhub.sqlite")
    try:
        return "\n".join(database.iterdump())
    finally:
        database.close()


async def _messages_with(stage: Stage, stream: str, text: bytes) -> list[int]:
    js = stage.bus.connection.js
    state = (await js.stream_info(stream)).state
    found = []
    for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
        try:
            message = await js.get_msg(stream, sequence, direct=True)
        except Exception as error:
            if "NotFound" not in type(error).__name__:
                raise
            continue
        if text in (message.data or b""):
            found.append(sequence)
    return found
