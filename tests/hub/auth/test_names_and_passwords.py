"""Names people can't take, and passwords they can't have."""

import asyncio
import time

import pytest

from mlhub_hub.auth import names, passwords
from mlhub_hub.auth.passwords import Passwords


@pytest.mark.parametrize("name", ["alice", "foo.bar", "a@example.org", "first_last", "x", "a-b", "josé", "4ever"])
def test_ordinary_names_are_fine(name: str) -> None:
    assert names.why_refused(names.normalise(name)) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "a--b",
        "-a",
        "a-",
        ".",
        "..",
        "a/b",
        "a b",
        "a\nb",
        "a\0b",
        "a\u202eb",
        "a" * 65,
        "<script>",
        "a%2fb",
        "a:b",
        "a\\b",
    ],
)
def test_hostile_names_are_refused(name: str) -> None:
    assert names.why_refused(names.normalise(name)) is not None


def test_one_name_has_one_spelling() -> None:
    assert {names.normalise(name) for name in ("Alice", " alice ", "\uff21lice")} == {"alice"}


@pytest.mark.parametrize(
    "password", ["", "short77", "password", "PASSWORD123", "aaaaaaaa", "12121212", "alicia99", "Alicia-2024", "x" * 513]
)
def test_bad_passwords_are_refused(password: str) -> None:
    assert passwords.why_refused(password, "alicia") is not None


@pytest.mark.parametrize(
    "password", ["correct horse", "ünïcödé ist gut", " leading and trailing ", "alicia is my name"]
)
def test_good_passwords_are_not(password: str) -> None:
    assert passwords.why_refused(password, "alicia") is None


async def test_only_the_right_password_verifies() -> None:
    keeper = Passwords()
    known = await keeper.hash("correct horse")
    assert known.startswith("$argon2id$")
    assert await keeper.verify("correct horse", known)
    assert not await keeper.verify("correct horsf", known)
    assert not await keeper.verify("correct horse", None)
    assert not await keeper.verify("correct horse", "damaged")


async def test_hashing_leaves_the_event_loop_alone() -> None:
    keeper = Passwords()
    work = asyncio.gather(*(keeper.hash(f"password {number}") for number in range(12)))
    longest = 0.0
    while not work.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - before)
    await work
    assert longest < 0.5
