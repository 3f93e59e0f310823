import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mlhub_standalone import leftovers
from mlhub_standalone.backends import Choice, Place, choose
from mlhub_standalone.data_dir import DataDir
from mlhub_standalone.doctor import doctor
from mlhub_standalone.engine import Engine, EngineAway
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.instance import keep, plan
from mlhub_standalone.options import AUTO, DOCKER, PROCESS, Asked
from tests.standalone.scripted_engine import ScriptedEngine, scripted_engine

_NOBODY = 65534


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedEngine]:
    with scripted_engine(tmp_path) as server:
        yield server


@pytest.fixture
def nowhere(tmp_path: Path) -> Engine:
    return Engine(f"unix://{tmp_path}/none.sock")


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return DataDir(tmp_path / "data")


@contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    """Root may use every socket."""
    before = os.geteuid()
    os.seteuid(_NOBODY if before == 0 else before)
    try:
        yield
    finally:
        os.seteuid(before)


def auto(place: Place) -> Choice:
    return choose(AUTO, place)


def test_containers_where_an_engine_answers_and_has_the_default_image(server: ScriptedEngine) -> None:
    server.images.add("mlhub-workspace")
    choice = auto(Place(server.engine))
    assert choice.backend == DOCKER
    assert "Docker 20.10.24 answers and has the image mlhub-workspace" in choice.why


def test_the_default_image_is_the_one_of_the_settings(server: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLHUB_DEFAULT_IMAGE", "registry.example/team/lab:4")
    server.images.add("mlhub-workspace")
    assert auto(Place(server.engine)).backend == PROCESS
    server.images.add("registry.example/team/lab:4")
    assert auto(Place(server.engine)).backend == DOCKER


def test_processes_where_the_image_is_not_there(server: ScriptedEngine) -> None:
    choice = auto(Place(server.engine))
    assert choice.backend == PROCESS
    assert "has no image mlhub-workspace (make images)" in choice.why


def test_processes_where_there_is_no_engine(nowhere: Engine) -> None:
    choice = auto(Place(nowhere))
    assert choice.backend == PROCESS
    assert "there is no Docker engine" in choice.why


def test_an_engine_that_accepts_and_says_nothing_is_not_waited_for(server: ScriptedEngine) -> None:
    server.silent.set()
    began = time.monotonic()
    with pytest.raises(EngineAway, match="no Docker engine answers"):
        server.engine._ask("GET", "/version", patience=0.3)
    assert time.monotonic() - began < 2


def test_a_socket_that_may_not_be_used_is_told_apart(server: ScriptedEngine, tmp_path: Path) -> None:
    (tmp_path / "docker.sock").chmod(0)
    with as_an_ordinary_user():
        why = auto(Place(server.engine)).why
    assert "group `docker`" in why


def test_what_was_asked_for_is_not_replaced_by_something_else(server: ScriptedEngine, nowhere: Engine) -> None:
    server.images.add("mlhub-workspace")
    assert choose(PROCESS, Place(server.engine)).backend == PROCESS
    with pytest.raises(LauncherError, match="mlhub up --backend process"):
        choose(DOCKER, Place(nowhere))


def test_workspaces_that_have_files_stay_what_they_were(server: ScriptedEngine, nowhere: Engine) -> None:
    server.images.add("mlhub-workspace")
    assert auto(Place(server.engine, known=PROCESS)).backend == PROCESS
    assert "has its files there" in choose(DOCKER, Place(server.engine, known=PROCESS)).why
    server.images.clear()
    assert auto(Place(server.engine, known=DOCKER)).backend == DOCKER
    with pytest.raises(LauncherError, match="there is no Docker engine"):
        auto(Place(nowhere, known=DOCKER))


def test_a_mounted_socket_that_does_not_answer_ends_a_container(tmp_path: Path, server: ScriptedEngine) -> None:
    (tmp_path / "dead.sock").touch()
    with pytest.raises(LauncherError, match="no Docker engine answers"):
        auto(Place(Engine(f"unix://{tmp_path}/dead.sock"), in_container=True))
    assert auto(Place(server.engine, in_container=True)).backend == DOCKER
    assert auto(Place(Engine(f"unix://{tmp_path}/none.sock"), in_container=True)).backend == PROCESS


def test_containers_without_their_default_image_are_warned_of(server: ScriptedEngine) -> None:
    choices = [
        lambda: auto(Place(server.engine, in_container=True)).why,
        lambda: auto(Place(server.engine, known=DOCKER)).why,
        lambda: choose(DOCKER, Place(server.engine)).why,
    ]
    assert ["no image mlhub-workspace yet: a start has to fetch it" in why() for why in choices] == [True] * 3
    server.images.add("mlhub-workspace")
    assert ["mlhub-workspace" in why() for why in choices] == [False] * 3


def test_an_instance_without_workspaces_is_free_to_change(data: DataDir, server: ScriptedEngine) -> None:
    environment = {"DOCKER_HOST": server.engine.url}
    first = plan(data, Asked(backend=AUTO), environment)
    keep(first)
    assert first.backend == PROCESS
    server.images.add("mlhub-workspace")
    assert plan(data, Asked(backend=AUTO), environment).backend == DOCKER
    (data.of("spawner-worker") / "workspaces" / "ws-alice-mlhub").mkdir(parents=True)
    assert plan(data, Asked(backend=AUTO), environment).backend == PROCESS


def test_two_hubs_of_one_name_do_not_share_an_engine(data: DataDir, server: ScriptedEngine) -> None:
    environment = {"DOCKER_HOST": server.engine.url}
    server.add_container("compose-hub-1", state="exited", deployment="mlhub", service="hub")
    assert plan(data, Asked(backend=DOCKER), environment).runs_containers
    server.add_container("compose-proxy-1", deployment="mlhub", service="proxy")
    with pytest.raises(LauncherError, match=r"runs on this engine already \(compose-proxy-1\)"):
        plan(data, Asked(backend=DOCKER), environment)
    assert plan(data, Asked(backend=DOCKER, hub_name="other"), environment).hub_name == "other"


def test_kept_containers_are_found_again_and_ended_with_the_rest(data: DataDir, server: ScriptedEngine) -> None:
    instance = plan(data, Asked(backend=DOCKER), {"DOCKER_HOST": server.engine.url})
    keep(instance)
    server.add_container("ws-alice-mlhub", origin="mlhub", user="alice", generation="1")
    server.add_container("ws-bob-other", origin="other", user="bob", generation="1")
    server.add_container("ws-carol-mlhub", origin="mlhub", user="carol")
    assert [container.name for container in leftovers.containers(data)] == ["ws-alice-mlhub"]
    assert leftovers.end(data, keep_workspaces=True).containers == 0
    ended = leftovers.end(data, keep_workspaces=False)
    assert str(ended) == "1 container of workspaces"
    assert server.asked[0].startswith("POST /containers/id-ws-alice-mlhub/stop")
    assert len(server.asked) == 2
    assert [container.name for container in server.engine.left_behind()] == ["ws-carol-mlhub"]
    assert server.engine.workspaces("other")

    keep(replace(instance, backend=PROCESS))
    server.add_container("ws-alice-mlhub", origin="mlhub", user="alice", generation="2")
    assert leftovers.end(data, keep_workspaces=False).containers == 0


def test_the_doctor_says_what_the_engine_has(
    server: ScriptedEngine, data: DataDir, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {"DOCKER_HOST": server.engine.url, "MLHUB_SPAWNER_WORKER_FIREWALL_IMAGE": "rules"}
    doctor(data, Asked(), environment)
    said = capsys.readouterr().out
    assert f"ok    docker       20.10.24 (cgroup v1, ?) at {server.engine.url}" in said
    assert "warn  image        there is no mlhub-workspace: workspaces run as processes" in said
    server.images |= {"mlhub-workspace", "rules"}
    doctor(data, Asked(), environment)
    said = capsys.readouterr().out
    assert "ok    image        mlhub-workspace is there: workspaces run as containers" in said
    assert "ok    firewall     rules are set by" in said
    doctor(data, Asked(), {"DOCKER_HOST": "ssh://elsewhere"})
    assert "ssh://elsewhere is no way to an engine that is known here" in capsys.readouterr().out
