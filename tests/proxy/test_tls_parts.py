"""The smaller parts of TLS: what makes a certificate serve, and the configuration for all that comes by one port."""

import ipaddress
import itertools
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from pydantic import ValidationError

from mlhub_proxy.certificates.mounted import Mounted
from mlhub_proxy.certificates.own import all_names, local_addresses, make_own, still_serves
from mlhub_proxy.certificates.pair import read_pair
from mlhub_proxy.config import CONFIG, make_config
from mlhub_proxy.entrance import CHALLENGES
from mlhub_proxy.neighbours import CALLERS
from mlhub_proxy.routes import TABLES
from mlhub_proxy.settings import ProxySettings
from mlhub_shared.errors import Permanent
from tests.proxy.stack import PROGRAMS
from tests.proxy.tls import make

NOW = datetime.now(UTC)
NETWORK = ipaddress.ip_network("10.113.0.0/16")
HARMLESS = "HTTP log/header format not usable with frontend 'web'"
"""HAProxy's warning about logs, of which there are none, in a frontend that becomes HTTP only where it is no SSH."""


@pytest.mark.parametrize("program", PROGRAMS)
def test_haproxy_accepts_every_kind_of_entrance(tmp_path: Path, program: str) -> None:
    own = make_own(ProxySettings(), NOW)
    (tmp_path / "tls.pem").write_text(own.pem)
    for name in (*TABLES, CHALLENGES, CALLERS):
        (tmp_path / name).touch()
    gateways: list[tuple[str, int] | None] = [
        *(None, ("127.0.0.1", 2222), ("::1", 2222), ("/run/ssh.sock", 0)),
        ("ssh-gateways", 2223),
    ]
    for tls, gateway, networks, host in itertools.product(
        (True, False), gateways, ((), (NETWORK,)), ("::", "10.1.2.3")
    ):
        settings = ProxySettings(
            data_dir=tmp_path,
            tls=tls,
            ssh_gateway=gateway,
            trusted_proxies=networks,
            refused_networks=networks,
            hsts_seconds=len(networks),
            public_host=host,
        )
        for name, text in make_config(settings, "2").files.items():
            (tmp_path / name).write_text(text)
        run = subprocess.run(
            [program, "-c", "-f", CONFIG], cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False
        )
        said = (run.stdout + run.stderr).splitlines()
        assert run.returncode == 0, said
        assert not [line for line in said if "[WARNING]" in line and HARMLESS not in line]


@pytest.mark.parametrize(
    "wrong",
    [
        {"ssh_gateway": "host"},
        {"ssh_gateway": "host:port"},
        {"ssh_gateway": "a b:22"},
        {"ssh_gateway": "h:22 check\n server evil"},
        {"ssh_gateway": "unix:relative"},
        {"acme_domains": "*.hub.example"},
        {"acme_domains": "localhost"},
        {"acme_directory": "http://ca.example/dir"},
        {"tls_names": "a b"},
        {"tls_names": "hub.example:8080"},
        {"trusted_proxies": "everybody"},
        {"hsts_seconds": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProxySettings(**wrong)  # type: ignore[arg-type]


def test_names_are_written_as_certificates_have_them() -> None:
    settings = ProxySettings(tls_names="HUB.example, 2001:DB8:0::7,[::1],*.Tools.example")
    assert settings.tls_names == ("hub.example", "2001:db8::7", "::1", "*.tools.example")
    assert still_serves(make_own(settings, NOW), settings, NOW)


def test_an_address_with_a_zone_is_certified_without_it() -> None:
    settings = ProxySettings(tls_names="fe80::1%eth0,[fe80::2%3]")
    assert settings.tls_names == ("fe80::1", "fe80::2")
    assert still_serves(make_own(settings, NOW), settings, NOW)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://Hub.example:8443/", "hub.example"),
        ("https://192.0.2.7", "192.0.2.7"),
        ("https://[2001:db8:0::7]:443", "2001:db8::7"),
    ],
)
def test_the_host_of_the_public_url_is_certified_whatever_other_names_are_set(
    monkeypatch: pytest.MonkeyPatch, url: str, name: str
) -> None:
    before = make_own(ProxySettings(tls_names="other.example"), NOW)
    for variable in ("MLHUB_HUB_PUBLIC_URL", "MLHUB_PROXY_PUBLIC_URL"):
        monkeypatch.setenv(variable, url)
        settings = ProxySettings(tls_names="other.example")
        assert not still_serves(before, settings, NOW)
        own = make_own(settings, NOW)
        assert {name, "other.example"} < own.names
        assert still_serves(own, settings, NOW)
        monkeypatch.delenv(variable)


@pytest.mark.parametrize("url", ["", "https://a b", "https://münchen.example", "https://[::1"])
def test_a_public_url_that_no_certificate_can_have_is_left_out(url: str) -> None:
    settings = ProxySettings(public_url=url, tls_names="other.example")
    assert settings.served_names == ("other.example",)
    assert still_serves(make_own(settings, NOW), settings, NOW)


def test_sites_of_tools_are_certified() -> None:
    settings = ProxySettings(public_url="https://hub.example", tools_domain="tools.example")
    assert make_own(settings, NOW).covers(["hub.example", "8050--ws-alice-test.tools.example"])


def test_the_old_name_of_the_switch_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, meant in (("true", True), ("on", True), ("false", False)):
        monkeypatch.setenv("SSL_ENABLED", value)
        assert ProxySettings().tls is meant
    monkeypatch.setenv("MLHUB_PROXY_TLS", "on")
    assert ProxySettings().tls


def test_a_pair_is_read_in_any_order_and_without_what_is_between() -> None:
    made, authority = make("hub.example", alternatives=["192.0.2.7"]), make("authority")
    pair = read_pair(f"# mine\n\n{made.certificate}\n\n{authority.certificate}\nkey:\n{made.key}\n")
    assert pair.names == {"hub.example", "192.0.2.7"}
    lines = pair.pem.splitlines()
    assert lines[0] == "-----BEGIN PRIVATE KEY-----"
    assert all(lines)
    assert pair.pem.count("BEGIN CERTIFICATE") == 2
    assert read_pair(pair.pem) == pair
    assert made.key.splitlines()[1] not in repr(pair)


def test_what_is_no_pair_is_refused_with_a_reason() -> None:
    made, other = make(), make()
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    short = make(key=rsa.generate_private_key(65537, 1024))  # noqa: S505  (it is what must be refused)
    for text, why in (
        (made.certificate, "no private key"),
        (made.key, "can't be read"),
        (made.key + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "can't be read"),
        (other.key + made.certificate, "not that of the first certificate"),
        (locked.decode() + made.certificate, "locked with a password"),
        (short.key + short.certificate, "1024 bits is too short"),
        (made.key + made.certificate * 40, "longer than"),
        (made.key.replace("M", "N") + made.certificate, "key can't be read"),
    ):
        with pytest.raises(Permanent, match=why):
            read_pair(text)


def test_a_wildcard_covers_one_level_below() -> None:
    made = make("*.hub.example")
    pair = read_pair(made.key + made.certificate)
    assert pair.covers(["*.hub.example", "a.hub.example"])
    assert not pair.covers(["a.b.hub.example"])
    assert not pair.covers(["hub.example"])


def test_our_own_serves_until_a_month_before_its_end_and_for_the_names_that_are_set() -> None:
    settings = ProxySettings(tls_names=("hub.example",))
    own = make_own(settings, NOW)
    assert still_serves(own, settings, NOW + timedelta(days=334))
    assert not still_serves(own, settings, NOW + timedelta(days=336))
    assert not still_serves(own, ProxySettings(tls_names=("other.example",)), NOW)
    after = make_own(ProxySettings(tls_names=("other.example",)), NOW, last=own)
    assert {"hub.example", "other.example"} < after.names
    late = NOW + timedelta(days=336)
    assert "hub.example" not in make_own(ProxySettings(), late, last=own).names
    foreign = make("hub.example")
    assert not still_serves(read_pair(foreign.key + foreign.certificate), settings, NOW)


def test_a_host_that_listens_everywhere_is_certified_for_all_its_addresses(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(
        "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.113.0.2\n        /32 host LOCAL\n     |-- 127.0.0.1\n"
        "        /32 host LOCAL\n     |-- 192.0.2.9\n        /32 host LOCAL\n"
        "     |-- 192.0.2.255\n        /32 link BROADCAST\n"
    )
    (tmp_path / "if_inet6").write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "20010db8000000000000000000000007 02 40 00 80     eth0\n"
        "fe80000000000000021122fffe334455 02 40 20 80     eth0\n"
    )
    assert local_addresses([NETWORK], tmp_path) == ["192.0.2.9", "2001:db8::7"]
    assert local_addresses([], tmp_path / "nothing") == []
    assert "192.0.2.1" in all_names(ProxySettings(public_host="192.0.2.1"))


def test_trouble_is_told_when_it_lasts(tmp_path: Path) -> None:
    mounted, good, other = Mounted(tmp_path), make("one.example"), make("two.example")
    assert mounted.look(NOW) is None
    assert (mounted.is_there, mounted.problem) == (False, None)
    good.put(tmp_path)
    found = mounted.look(NOW)
    assert found is not None
    assert found.names == {"one.example"}
    # Between the two files somebody looks.
    (tmp_path / "cert.crt").write_text(other.certificate)
    assert mounted.look(NOW) is None
    assert (mounted.is_there, mounted.problem) == (True, None)
    (tmp_path / "cert.key").write_text(other.key)
    assert mounted.look(NOW) is not None
    (tmp_path / "cert.key").unlink()
    mounted.look(NOW)
    mounted.look(NOW)
    assert "cert.key" in str(mounted.problem)
    (tmp_path / "cert.crt").unlink()
    assert mounted.look(NOW) is None
    assert (mounted.is_there, mounted.problem) == (False, None)


@pytest.mark.parametrize("name", ["cert.pem", "tls"])
def test_other_names_of_the_files_are_known(tmp_path: Path, name: str) -> None:
    made = make()
    if name == "tls":
        (tmp_path / "tls.crt").write_text(made.certificate)
        (tmp_path / "tls.key").write_text(made.key)
    else:
        (tmp_path / name).write_text(made.certificate + made.key)
    assert Mounted(tmp_path).look(NOW) is not None
