"""Which subnet the next network gets, what it is called, and which container the worker itself is."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlhub_spawner_worker.backends.docker.networks import network_name
from mlhub_spawner_worker.backends.docker.own_container import own_candidates
from mlhub_spawner_worker.backends.docker.subnets import Subnets, gateway, room
from mlhub_spawner_worker.firewall import bridge_name, bridge_prefix

POOL = IPv4Network("10.113.0.0/16")
ID = "0f" * 32
USERS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


def test_two_hundred_users_get_two_hundred_subnets() -> None:
    subnets = Subnets(POOL, 26)
    given_out: list[IPv4Network] = []
    for _ in range(200):
        free = subnets.first_free(given_out)
        assert free is not None
        assert free.prefixlen == 26
        assert not any(free.overlaps(other) for other in given_out)
        given_out.append(free)
    assert given_out[0] == IPv4Network("10.113.0.0/26")
    assert given_out[-1] == IPv4Network("10.113.49.192/26")


@given(taken=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 32)), max_size=20), size=st.integers(24, 29))
def test_free_is_what_nobody_touches(taken: list[tuple[int, int]], size: int) -> None:
    pool = IPv4Network("10.0.0.0/22")
    networks = [IPv4Network((number, prefix), strict=False) for number, prefix in taken]
    networks += [IPv4Network((int(pool.network_address) + number % 1024, 30), strict=False) for number, _ in taken]
    expected = [one for one in pool.subnets(new_prefix=size) if not any(one.overlaps(other) for other in networks)]
    assert Subnets(pool, size).first_free(networks) == (expected[0] if expected else None)


def test_a_used_up_pool_says_so() -> None:
    subnets = Subnets(IPv4Network("10.0.0.0/24"), 26)
    assert subnets.count == 4
    assert room(IPv4Network("10.113.0.64/26")) == 61
    assert subnets.first_free([IPv4Network("10.0.0.0/25"), IPv4Network("10.0.0.128/25")]) is None
    assert subnets.first_free([IPv4Network("10.0.0.0/25"), IPv4Network("10.0.0.192/32")]) == IPv4Network(
        "10.0.0.128/26"
    )
    assert str(gateway(IPv4Network("10.0.0.128/26"))) == "10.0.0.129"


@pytest.mark.parametrize("size", [15, 30])
def test_a_size_that_makes_no_networks_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="no size for a network"):
        Subnets(POOL, size)


@given(first=USERS, second=USERS)
def test_no_two_users_share_a_network(first: str, second: str) -> None:
    if first != second:
        assert network_name("hub", first) != network_name("hub", second)
        assert bridge_name("hub", first) != bridge_name("hub", second)
    assert network_name("one", first) != network_name("two", first)
    assert bridge_name("one", first).startswith(bridge_prefix("one"))
    assert not bridge_name("two", first).startswith(bridge_prefix("one"))
    # The kernel's limit of a link's name, and the engine's way to order networks.
    assert len(bridge_name("hub", first)) == 15
    assert network_name("hub", first) > "zoo_default"


MOUNTS = f"""\
711 697 0:150 / / rw,relatime master:300 - overlay overlay rw
712 711 254:1 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda1 rw
713 711 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw
"""
OTHERS_MOUNT = f"90 80 254:1 /var/lib/docker/containers/{ID}/mounts/shm /mnt rw - tmpfs shm rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "host_name", "expected"),
    [
        (MOUNTS, "0::/\n", "hub.example.org", [ID]),
        ("", f"4:memory:/docker/{ID}\n1:cpu:/docker/{ID}\n", "hub", [ID]),
        ("", f"0::/system.slice/docker-{ID}.scope\n", "hub", [ID]),
        ("", "0::/\n", "0123456789ab", ["0123456789ab"]),
        (OTHERS_MOUNT, "0::/user.slice\n", "laptop", []),
    ],
)
def test_a_container_knows_itself(
    tmp_path: Path, mountinfo: str, cgroup: str, host_name: str, expected: list[str]
) -> None:
    (tmp_path / "mountinfo").write_text(mountinfo)
    (tmp_path / "cgroup").write_text(cgroup)
    assert own_candidates(tmp_path, host_name) == expected


def test_a_system_without_proc_is_no_container(tmp_path: Path) -> None:
    assert own_candidates(tmp_path / "none", "laptop") == []
