"""Which network a listener's neighbours are on."""

from pathlib import Path

import pytest

from mlhub_shared.runtime.own_network import network_of

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t010013AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth1\t000013AC\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0
eth2\t4000710A\t00000000\t0001\t0\t0\t0\tC0FFFFFF\t0\t0\t0
"""


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    file = tmp_path / "route"
    file.write_text(ROUTES)
    return file


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("172.18.0.7", "172.18.0.0/16"),
        ("172.19.1.2", "172.19.0.0/20"),
        ("10.113.0.66", "10.113.0.64/26"),
        ("localhost", "127.0.0.0/8"),
    ],
)
def test_the_own_network_is_the_one_an_address_is_directly_on(routes: Path, address: str, network: str) -> None:
    assert str(network_of(address, routes)) == network


def test_an_address_on_no_network_is_refused_rather_than_left_open(routes: Path) -> None:
    with pytest.raises(ValueError, match=r"9\.9\.9\.9 is on no network"):
        network_of("9.9.9.9", routes)
