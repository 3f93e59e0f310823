"""Hosts by their names, and who may call by them."""

import asyncio
from ipaddress import ip_network

import pytest
from pydantic import TypeAdapter, ValidationError

from mlhub_shared.runtime import hosts
from mlhub_shared.runtime.hosts import Callers, Hosts, Place, lookup
from tests.support.scripted_names import ScriptedNames
from tests.support.waiting import until

PLACES: TypeAdapter[tuple[Place, ...]] = TypeAdapter(tuple[Place, ...])


def told(known: Hosts, name: str) -> list[str]:
    return [str(address) for address in known.addresses(name)]


async def test_addresses_follow_a_name_and_stay_while_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ScriptedNames(a=["10.0.0.2", "fd00::1", "10.0.0.1"])
    known = Hosts(["a", "b"], names)
    assert await known.look()
    assert (told(known, "a"), told(known, "b")) == (["10.0.0.1", "10.0.0.2", "fd00::1"], [])
    assert (known.is_known("a"), known.is_known("b")) == (True, False)
    assert not await known.look()
    del names["a"]
    assert not await known.look()
    assert told(known, "a") == ["10.0.0.1", "10.0.0.2", "fd00::1"]
    names["a"] = ["10.0.0.2"]
    assert await known.look()
    assert told(known, "a") == ["10.0.0.2"]
    monkeypatch.setattr(hosts, "_KEPT", 0.0)
    del names["a"]
    assert await known.look(), "by now somebody else may have the address"
    assert told(known, "a") == []


async def test_a_name_that_is_slow_is_not_asked_for_twice_and_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_PATIENCE", 0.05)
    names = ScriptedNames(slow=["10.0.0.1"], other=["10.0.0.2"])
    known = Hosts(["slow"], names)
    names.slow.clear()
    for _ in range(3):
        assert not await known.look()
    assert names.questions == ["slow"]
    names.slow.set()
    assert await known.look()
    assert told(known, "slow") == ["10.0.0.1"]


async def test_changes_are_told_while_it_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "EVERY", 0.01)
    names, seen = ScriptedNames(a=["10.0.0.1"]), list[list[str]]()
    known = Hosts(["a"], names)

    async def changed() -> None:
        seen.append(told(known, "a"))

    following = asyncio.ensure_future(known.follow(changed))
    try:
        await until(lambda: seen == [["10.0.0.1"]])
        names["a"] = ["10.0.0.3"]
        await until(lambda: seen[1:] == [["10.0.0.3"]])
    finally:
        following.cancel()


async def test_callers_are_admitted_by_network_and_by_name() -> None:
    callers = Callers(PLACES.validate_python(["10.1.0.0/16", "proxies"]), ScriptedNames(proxies=["10.2.0.7"]))
    assert not callers.admits("10.2.0.7"), "not looked up yet"
    await callers.look()
    assert callers.networks == {ip_network("10.1.0.0/16"), ip_network("10.2.0.7/32")}
    for address, is_admitted in (
        ("10.1.2.3", True),
        ("10.2.0.7", True),
        ("::ffff:10.2.0.7", True),
        ("10.2.0.8", False),
        ("fe80::1%eth0", False),
        ("", False),
    ):
        assert callers.admits(address) is is_admitted, address


async def test_a_real_name_is_looked_up() -> None:
    assert "127.0.0.1" in [str(address) for address in await lookup("localhost")]
    for nobody in ("no-such-host.invalid", "a" * 70, "a..b"):
        with pytest.raises(OSError, match=r"."):
            await lookup(nobody)


@pytest.mark.parametrize("text", ["10.0.0.0/8", "::1", "proxies", "hub.mlhub.svc", "a.b.c.", "Proxy_1.example"])
def test_a_place_is_a_network_or_a_name(text: str) -> None:
    (place,) = PLACES.validate_python([text])
    assert isinstance(place, str) is text[0].isalpha()


@pytest.mark.parametrize("text", ["10.0.0.300", "10.0.0.0/33", "own", "a b", "-a", "a\n", "", "a.1", "http://a", "a/b"])
def test_a_mistaken_address_is_no_name(text: str) -> None:
    with pytest.raises(ValidationError):
        PLACES.validate_python([text])
