"""The rules that keep workspaces off their host, as text; what they do is seen from inside in test_isolation."""

from pathlib import Path

import pytest

from mlhub_spawner_worker.backends.docker.configuration import ReachSettings
from mlhub_spawner_worker.backends.docker.firewall import openings
from mlhub_spawner_worker.firewall import Chains, Openings, bridge_prefix, command, main, nameservers, rules

OUT = "MLHUB-hub-OUT"


def of_chain(chain: str, lines: list[str]) -> list[str]:
    """The rules of one chain."""
    return [line.removeprefix(f"-A {chain} ") for line in lines if line.startswith(f"-A {chain} ")]


def names_of(hub: str) -> set[str]:
    """All chains of a deployment."""
    return {name for names in Chains(hub).by_table.values() for name in names}


@pytest.mark.parametrize("sees_bridged", [True, False])
def test_every_chain_passes_answers_first_and_knows_its_end(sees_bridged: bool) -> None:
    lines = rules("hub", Openings(), sees_bridged=sees_bridged)
    for chain, end in (("HOST", "-j REJECT"), ("OUT", "-j RETURN"), ("IN", "-j DROP")):
        chain = f"MLHUB-hub-{chain}"
        listed = of_chain(chain, lines)
        assert listed[0] == "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"
        assert listed[-1] == end
    assert any("physdev" in line for line in lines) == sees_bridged


def test_a_cloud_s_secrets_are_closed_but_its_name_servers_open() -> None:
    listed = of_chain(OUT, rules("hub", Openings()))
    secret = listed.index("-d 169.254.0.0/16 -j DROP")
    assert listed.index("-p udp --dport 53 -j RETURN") < secret
    assert listed.index("-p tcp --dport 53 -j RETURN") < secret
    # But never those of a published port, or of another user.
    assert listed.index("-m conntrack --ctstate DNAT -j DROP") < listed.index("-p udp --dport 53 -j RETURN")


def test_no_two_deployments_share_a_chain_or_a_bridge() -> None:
    one, two, long = (names_of(hub) for hub in ("one", "two", "h" * 16))
    assert not one & two
    assert bridge_prefix("one") != bridge_prefix("two")
    # The kernel's limit.
    assert all(len(name) <= 28 for name in long)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (ReachSettings(reach="host", api_port=8102, closed_to=("10.1.0.0/16",)), ["--api-port", "8102"]),
        (ReachSettings(reach="services", api_port=8102), []),
        (ReachSettings(reach="self", proxy_address="10.0.0.1"), []),
        (
            ReachSettings(reach="published", proxy_address="10.0.0.1", publish_to=("10.0.0.1", "10.2.0.0/24")),
            ["--proxy", "10.0.0.1:8002", "--entry-from", "10.0.0.1", "--entry-from", "10.2.0.0/24"],
        ),
    ],
)
def test_each_reach_opens_only_what_it_needs(settings: ReachSettings, expected: list[str]) -> None:
    closed = [word for address in settings.closed_to for word in ("--closed", address)]
    assert command("apply", "hub", openings(settings)) == ["apply", "--hub", "hub", *expected, *closed]


@pytest.mark.parametrize(
    "wrong", [["--proxy", "proxy:8002"], ["--entry-from", "everywhere"], ["--closed", "::/0"], ["--api-port", "x"]]
)
def test_what_is_no_address_sets_no_rules(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["apply", "--hub", "tnever", *wrong])
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_name_servers_are_those_a_container_can_ask(tmp_path: Path) -> None:
    ours = "# made by hand\nsearch example.org\nnameserver\nnameserver 127.0.0.53\nnameserver 10.0.0.2\n"
    (tmp_path / "resolv.conf").write_text(ours + "nameserver fd00::1\n")
    (tmp_path / "more").write_text("nameserver 10.0.0.2\nnameserver 192.0.2.1\noptions ndots:1\n")
    found = nameservers(tmp_path / "resolv.conf", tmp_path / "none", tmp_path / "more")
    assert found == ["10.0.0.2", "192.0.2.1"]
    listed = of_chain("MLHUB-hub-HOST", rules("hub", Openings(), nameservers=found))
    assert "-d 10.0.0.2 -p udp --dport 53 -j ACCEPT" in listed
