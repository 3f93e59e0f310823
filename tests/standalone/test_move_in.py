import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mlhub_shared.contracts.arrivals import Arrival
from mlhub_shared.contracts.options import validate
from mlhub_shared.contracts.policy import Policy
from mlhub_shared.runtime.profiles import read_profiles
from mlhub_standalone import old_database, old_images, volumes
from mlhub_standalone.commands import run
from mlhub_standalone.data_dir import DataDir, read_json
from mlhub_standalone.engine import Volume
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.instance import plan
from mlhub_standalone.move_in import at_first_start, move_in
from mlhub_standalone.options import DOCKER, Asked
from mlhub_standalone.translation import Translation, normalise, translate, translate_options
from tests.standalone.old_hub import WORKSPACE, OldData, small_team
from tests.standalone.scripted_engine import scripted_engine

IMAGE = str(WORKSPACE["image"])


@pytest.fixture
def old(tmp_path: Path) -> OldData:
    return small_team(tmp_path / "old")


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    data = DataDir(tmp_path / "data")
    data.create()
    return data


def translated(old: OldData, **profiles: str) -> Translation:
    return translate(old_database.read(old.file), {image: name for name, image in profiles.items()})


def arrivals(old: OldData) -> dict[str, Arrival]:
    return {arrival.name: arrival for arrival in translated(old).arrivals.arrivals}


def rows(data: DataDir, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(data.of("hub") / "jupyterhub.sqlite")) as connection:
        return connection.execute(query).fetchall()


def test_everybody_comes_with_what_he_was(old: OldData) -> None:
    people = arrivals(old)
    assert list(people) == ["admin", "foo0bar", "alice", "bob"]
    assert [(it.is_admin, it.is_approved, it.is_user) for it in people.values()] == [
        (True, True, True), (False, True, True), (False, True, True), (False, False, False),
    ]  # fmt: skip
    assert people["admin"].created_at is not None
    assert people["admin"].created_at.year == 2019
    assert {server.name for server in people["foo0bar"].servers} == {"", "gpu1"}


def test_the_options_are_those_of_the_last_start_in_our_words(old: OldData) -> None:
    server = arrivals(old)["foo0bar"].servers[1]
    assert server.user_options == {
        "image": IMAGE, "cpu_limit": "2", "mem_limit": "4", "shm_size": "512m", "is_mount_volume": True,
        "env": {"STAGE": "test"},
    }  # fmt: skip
    assert arrivals(old)["alice"].servers[1].user_options["shm_size"] == "1024K"
    spec = validate(server.user_options, Policy(images_allowed=True, gpus_allowed=True, images=("*",)))
    assert (spec.mem_limit, spec.shm_size, spec.lifetime) == (4 * 1024**3, 512 * 1024**2, None)
    assert arrivals(old)["alice"].servers[1].user_options["gpus"] == "0,2"
    translation = translated(old, workspace=IMAGE)
    assert translation.arrivals.arrivals[1].servers[1].user_options["profile"] == "workspace"
    assert "image" not in translation.arrivals.arrivals[1].servers[1].user_options


def test_what_can_not_come_along_is_said(old: OldData) -> None:
    remarks = "\n".join(translated(old).remarks)
    assert "foo0bar: signed up as 'Foo.Bar', and logs in as 'foo0bar' from now on" in remarks
    assert "foo0bar/gpu1: not taken over: the variable DB_PASSWORD" in remarks
    assert "alice: had a second factor" in remarks
    assert "hunter2" not in remarks + translated(old).arrivals.model_dump_json()


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("alice", "alice"), ("Foo.Bar", "foo0bar"), ("foo-bar", "foo0bar"), ("foo_bar", "foo0bar"),
        ("lastname, first", "lastname0first"), ("a.b@c.de", "a0bc.de"), ("Admin", "admin"),
    ],
)  # fmt: skip
def test_names_are_made_as_the_old_hub_made_them(typed: str, name: str) -> None:
    assert normalise(typed) == name


def test_nobody_gets_in_as_somebody_else(tmp_path: Path) -> None:
    old = OldData(tmp_path / "old")
    for name in ("admin", "Admin", "foo.bar", "foo-bar"):
        old.sign_up(name, f"password-of-{name}")
    for name in ("admin", "foo0bar"):
        old.come_in(name)
    people, remarks = arrivals(old), translated(old).remarks
    exact = old_database.read(old.file).accounts[0]
    assert people["admin"].password_hash == exact.password_hash
    assert people["foo0bar"].password_hash is None
    assert people["foo0bar"].is_user
    assert any(remark.startswith("admin: 'Admin' came in as this user too") for remark in remarks)
    assert any("'foo.bar', 'foo-bar' were all of this one user" in remark for remark in remarks)


def test_a_name_of_an_older_version_is_recognised(tmp_path: Path) -> None:
    old = OldData(tmp_path / "old")
    old.sign_up("foo_bar", "password")
    old.come_in("foo_bar")
    assert arrivals(old)["foo_bar"].password_hash is not None


def test_odd_options_are_left_and_named() -> None:
    options, lost = translate_options({"update": True, "color": "red", "env": {"JUPYTERHUB_X": "1"}, "cpu_limit": None})
    assert options == {}
    assert lost == ["the variable JUPYTERHUB_X", "color"]


def test_what_is_no_such_database_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "jupyterhub.sqlite"
    text.write_text("no database at all, but long enough to be looked at")
    with pytest.raises(LauncherError, match="can't be read"):
        old_database.read(text)
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as connection:
        connection.execute("CREATE TABLE things (id INTEGER)")
    with pytest.raises(LauncherError, match="no database of a JupyterHub"):
        old_database.read(tmp_path / "other.sqlite")


def test_the_command_takes_everybody_in_and_writes_to_nothing_old(
    old: OldData, data: DataDir, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file.name: hashlib.sha256(file.read_bytes()).digest() for file in old.folder.iterdir()}
    arguments = ["move-in", str(old.folder), "--backend", "process", "--data-dir", str(data.root)]
    assert run(arguments) == 0
    said = capsys.readouterr().out
    assert "+ admin: account, user, an admin, default workspace" in said
    assert "+ bob: account, which waits for approval" in said
    assert "! foo0bar: workspace gpu1: image: this backend runs no images" in said
    assert {file.name: hashlib.sha256(file.read_bytes()).digest() for file in old.folder.iterdir()} == before

    assert rows(data, "SELECT name, admin FROM users ORDER BY name") == [("admin", 1), ("alice", 0), ("foo0bar", 0)]
    approvals = [("admin", "approved"), ("alice", "approved"), ("bob", "pending"), ("foo0bar", "approved")]
    assert rows(data, "SELECT name, approval FROM mlhub_accounts ORDER BY name") == approvals
    assert rows(data, "SELECT count(*) FROM spawners") == [(5,)]
    assert "hunter2" not in (data.of("hub") / "jupyterhub.sqlite").read_bytes().decode(errors="replace")
    assert read_json(data.moved_in)["from"] == str(old.file)

    assert run(arguments) == 0
    again = capsys.readouterr().out
    assert "  + " not in again
    assert rows(data, "SELECT count(*) FROM spawners") == [(5,)]


def test_what_is_here_already_is_not_touched(old: OldData, data: DataDir) -> None:
    instance = plan(data, Asked(), {})
    move_in(instance, old.folder, {})
    with closing(sqlite3.connect(data.of("hub") / "jupyterhub.sqlite")) as connection, connection:
        connection.execute(
            "UPDATE mlhub_accounts SET password_hash = 'new', approval = 'withdrawn' WHERE name = 'alice'"
        )
        connection.execute("UPDATE users SET admin = 0 WHERE name = 'admin'")
    report = move_in(instance, old.folder, {})
    assert "admin: was an admin there, and is none here" in report.remarks
    assert ("new", "withdrawn") in rows(data, "SELECT password_hash, approval FROM mlhub_accounts")
    assert (0,) in rows(data, "SELECT admin FROM users WHERE name = 'admin'")


def test_an_unapproved_account_of_the_first_admins_name_is_not_taken(tmp_path: Path, data: DataDir) -> None:
    old = OldData(tmp_path / "old")
    old.sign_up("admin", "a-strangers-password", authorized=False)
    old.sign_up("-odd-", "odd-password")
    report = move_in(plan(data, Asked(), {}), old.folder, {})
    assert "admin: this is the first admin's name, and the account of it was never approved" in report.remarks
    assert "0odd-: nobody can have this name here. Begin and end with a letter or a digit." in report.remarks
    assert rows(data, "SELECT name FROM mlhub_accounts") == []


def test_the_first_start_takes_over_what_lies_in_its_own_folder_once(data: DataDir) -> None:
    instance = plan(data, Asked(), {})
    at_first_start(instance, {})
    assert not data.moved_in.exists()
    small_team(data.root)
    at_first_start(instance, {})
    assert rows(data, "SELECT count(*) FROM users") == [(3,)]
    noted = data.moved_in.read_text()
    at_first_start(instance, {})
    assert data.moved_in.read_text() == noted


def test_a_first_start_with_a_broken_database_says_how_to_go_on(data: DataDir) -> None:
    (data.root / old_database.FILE).write_text("broken" * 100)
    with pytest.raises(LauncherError, match="to start without its users, move"):
        at_first_start(plan(data, Asked(), {}), {})


def test_volumes_and_images_are_found_where_workspaces_are_containers(
    old: OldData, data: DataDir, tmp_path: Path
) -> None:
    with scripted_engine(tmp_path) as server:
        labels = {"origin": "mlhub", "user": "foo0bar"}
        server.add_volume("ws-foo0bar-mlhub-gpu1", **labels, server_name="gpu1")
        server.add_volume("ws-foo0bar-mlhub-GPU2", **labels, server_name="GPU2")
        server.add_volume("ws-alice-old-lab", origin="old", user="alice", server_name="lab")
        server.add_volume("ws-eve-mlhub", origin="mlhub", user="eve", server_name="")
        server.add_container("ws-foo0bar-mlhub", **labels, server_name="", state="exited", image=IMAGE)
        gpu1 = {"server_name": "gpu1", "state": "exited", "workspace": "ws-foo0bar-mlhub-gpu1"}
        server.add_container("ws-foo0bar-mlhub-gpu1", **labels, **gpu1)
        server.add_container("ws-alice-mlhub", origin="mlhub", user="alice", server_name="", image=IMAGE)
        instance = plan(data, Asked(backend=DOCKER), {"DOCKER_HOST": server.engine.url})
        report = move_in(instance, old.folder, {})
    assert "foo0bar: volume ws-foo0bar-mlhub-gpu1" in report.lines
    remarks = "\n".join(report.remarks)
    assert "foo0bar: volume ws-foo0bar-mlhub-GPU2" in report.lines
    assert "the volume ws-alice-old-lab is of the hub 'old', and is found here as a copy only" in remarks
    assert "-v ws-alice-old-lab:/from:ro -v ws-alice-mlhub-lab:/to" in remarks
    assert "the volume ws-eve-mlhub is of 'eve', who was not taken over" in remarks
    # This one has nothing to save: what was begun for it goes.
    assert [entry for entry in server.asked if "ws-foo0bar-mlhub" in entry and "gpu1" not in entry] == [
        "DELETE /volumes/ws-foo0bar-mlhub",
        "POST /containers/id-ws-foo0bar-mlhub/rename?name=ws-foo0bar-mlhub.before",
    ]
    assert "volume ws-foo0bar-mlhub," not in "\n".join(report.lines)
    assert "POST /containers/id-ws-foo0bar-mlhub-gpu1/rename?name=ws-foo0bar-mlhub-gpu1.before" in server.asked
    assert "the old container ws-alice-mlhub still runs: docker stop ws-alice-mlhub" in remarks
    assert "workspace gpu1:" not in remarks
    profiles, _ = read_profiles(data.profiles)
    assert [profile.image for profile in profiles] == ["mlhub-workspace", IMAGE]
    assert (profiles[1].port, profiles[1].home, profiles[1].name) == (8080, "/workspace", "ml-workspace-0-8-7")
    assert (profiles[1].own_tools, profiles[1].own_ssh) == (True, True)
    query = "SELECT user_options FROM spawners JOIN users ON users.id = user_id"
    (options,) = rows(data, f"{query} WHERE users.name = 'foo0bar' AND spawners.name = ''")
    assert json.loads(str(options[0])) == {"profile": "ml-workspace-0-8-7"}
    (options,) = rows(data, "SELECT user_options FROM spawners WHERE name = 'gpu1'")
    assert json.loads(str(options[0]))["profile"] == "ml-workspace-0-8-7"


def test_volumes_of_those_who_were_refused_are_not_reported_as_taken(data: DataDir, tmp_path: Path) -> None:
    old = OldData(tmp_path / "old")
    old.come_in("-odd-")
    old.come_in("alice")
    with scripted_engine(tmp_path) as server:
        for user in ("-odd-", "alice"):
            server.add_volume(f"ws-{user}-mlhub", origin="mlhub", user=user, server_name="")
        instance = plan(data, Asked(backend=DOCKER), {"DOCKER_HOST": server.engine.url})
        first, again = (move_in(instance, old.folder, {}) for _ in range(2))
    for report in (first, again):
        assert "the volume ws--odd--mlhub is of '-odd-', who was not taken over" in report.remarks
        assert [line for line in report.lines if "volume" in line] == ["alice: volume ws-alice-mlhub"]


def test_files_that_no_volume_of_ours_has_are_named_with_the_command_that_copies_them(
    data: DataDir, tmp_path: Path
) -> None:
    old = OldData(tmp_path / "old")
    for user in ("alice", "bob", "carol", "dave"):
        old.come_in(user)
    with scripted_engine(tmp_path) as server:
        for user, workspace in (("alice", "jupyterhub-user-alice"), ("bob", "/srv/bob"), ("carol", "ws-carol-old")):
            more = {"state": "exited", "workspace": workspace, "user": user, "server_name": ""}
            server.add_container(f"ws-{user}-mlhub", origin="mlhub", **more)
        server.add_volume("ws-carol-old", origin="old", user="carol", server_name="")
        for user in ("dave", "eve"):
            server.add_container(f"ws-{user}-old", origin="old", user=user, server_name="")
        server.add_container("ws-eve-mlhub", origin="mlhub", user="eve", server_name="", state="exited")
        server.add_container("ws-frank-new", origin="new", user="frank", server_name="", generation="1")
        instance = plan(data, Asked(backend=DOCKER), {"DOCKER_HOST": server.engine.url})
        report = move_in(instance, old.folder, {})
    remarks = {remark.partition("\n")[0]: remark.partition("\n")[2] for remark in report.remarks}
    kept = "keeps its files: its workspace was not taken over"
    assert list(remarks) == [
        "carol: the volume ws-carol-old is of the hub 'old', and is found here as a copy only:",
        "alice: the old container ws-alice-mlhub has its files in jupyterhub-user-alice, found here as a copy only:",
        "bob: the old container ws-bob-mlhub has its files in /srv/bob, found here as a copy only:",
        f"eve: the old container ws-eve-mlhub {kept}",
        "dave: the old container ws-dave-old is of the hub 'old', and has files, found here as a copy only:",
        f"eve: the old container ws-eve-old is of the hub 'old', and {kept}",
    ]
    copies = list(remarks.values())
    assert "-v jupyterhub-user-alice:/from:ro -v ws-alice-mlhub:/to" in copies[1]
    assert "-v /srv/bob:/from:ro -v ws-bob-mlhub:/to" in copies[2]
    assert "&& docker cp ws-dave-old:/workspace - | docker run" in copies[4]
    # Names are freed where they would be in the way, and nowhere else.
    assert [entry.partition("?name=")[2] for entry in server.asked if "/rename" in entry] == [
        f"ws-{user}-mlhub.before" for user in ("alice", "bob", "carol", "eve")
    ]


def test_names_of_volumes_can_not_write_commands() -> None:
    volume = Volume("ws-x", "mlhub", "alice; rm -rf /", "$(reboot)")
    command = volumes.copy_command(volume, "ws-y", "mlhub", "image")
    assert "'mlhub.user=alice; rm -rf /'" in command
    assert "'mlhub.server_name=$(reboot)'" in command


def test_a_volume_of_another_hubs_name_is_to_be_copied() -> None:
    volume = Volume("ws-alice-old", "old", "alice", "")
    found = volumes.sort([volume, replace(volume, name="ws-alice-mlhub", origin="mlhub")], ["alice"], "mlhub")
    assert found.to_copy == [(volume, "ws-alice-mlhub")]
    assert [it.origin for it in found.used] == ["mlhub"]


def test_images_of_one_name_get_profiles_of_two(tmp_path: Path) -> None:
    file = tmp_path / "profiles.yaml"
    old_images.write(file, [], ["a/lab:1", "b/lab:1", "not an image"], port=8090)
    assert old_images.by_image(file) == {"a/lab:1": "lab-1", "b/lab:1": "lab-1-2"}
    assert read_profiles(file)[0][0].port == 8090
