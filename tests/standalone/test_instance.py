import socket
import threading
from pathlib import Path

import pytest

from mlhub_standalone import leftovers
from mlhub_standalone.data_dir import DataDir
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.instance import Instance, keep, plan
from mlhub_standalone.options import Asked
from mlhub_standalone.ports import INTERNAL, require_free


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    return DataDir(tmp_path / "data")


def planned(data: DataDir, asked: Asked | None = None, **environment: str) -> Instance:
    instance = plan(data, asked or Asked(), environment)
    keep(instance)
    return instance


def test_the_first_start_takes_the_defaults(data: DataDir) -> None:
    instance = planned(data)
    assert (instance.hub_name, instance.port, instance.ssh_port) == ("mlhub", 8080, 2222)
    assert instance.public_url == "http://127.0.0.1:8080"
    assert len(set(instance.internal.values())) == len(INTERNAL)


def test_the_next_start_finds_all_as_it_was(data: DataDir) -> None:
    first = planned(data, Asked(port=9000, ssh_port=9022, hub_name="team"))
    second = planned(data)
    assert (second.hub_name, second.port, second.ssh_port, second.internal) == ("team", 9000, 9022, first.internal)
    assert not second.warnings


def test_two_instances_have_nothing_in_common(data: DataDir, tmp_path: Path) -> None:
    other = planned(DataDir(tmp_path / "other"))
    assert not set(planned(data).internal.values()) & set(other.internal.values())


def test_a_kept_port_that_is_taken_is_replaced_and_told(data: DataDir) -> None:
    first = planned(data)
    with socket.create_server(("127.0.0.1", first.internal["probe"])):
        second = planned(data)
    assert second.internal["probe"] != first.internal["probe"]
    assert {**second.internal, "probe": 0} == {**first.internal, "probe": 0}
    assert str(first.internal["probe"]) in second.warnings[0]
    assert planned(data).internal == second.internal


def test_another_name_is_refused_where_workspaces_have_one(data: DataDir) -> None:
    planned(data, Asked(hub_name="team"))
    with pytest.raises(LauncherError, match="belongs to the hub 'team'"):
        planned(data, HUB_NAME="other")


@pytest.mark.parametrize("name", ["Team", "my-team", "1team", "t" * 17])
def test_a_name_that_can_be_no_hub_is_refused(data: DataDir, name: str) -> None:
    with pytest.raises(LauncherError, match="can't name a hub"):
        planned(data, Asked(hub_name=name))


def test_a_port_set_by_hand_wins(data: DataDir) -> None:
    instance = planned(data, MLHUB_HUB_LISTEN_PORT="8123", MLHUB_PROXY_PUBLIC_PORT="8124")
    assert (instance.internal["hub"], instance.port) == (8123, 8124)
    with pytest.raises(LauncherError, match="MLHUB_HUB_LISTEN_PORT"):
        planned(data, MLHUB_HUB_LISTEN_PORT="http")


def test_listening_for_everybody_is_not_where_people_go(data: DataDir) -> None:
    instance = planned(data, Asked(host="0.0.0.0"))  # noqa: S104
    assert instance.is_open
    assert instance.public_url == "http://127.0.0.1:8080"


def test_a_port_that_is_about_to_be_free_is_waited_for(data: DataDir) -> None:
    first = planned(data)
    taken = socket.create_server(("127.0.0.1", first.internal["probe"]))
    closing = threading.Timer(0.5, taken.close)
    closing.start()
    try:
        assert leftovers.take_over(data) == 0
    finally:
        closing.join()
    assert planned(data).internal == first.internal


def test_a_taken_port_names_the_option_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LauncherError, match=r"--ssh-port PORT"):
        require_free(taken.getsockname()[1], "127.0.0.1", "--ssh-port")
