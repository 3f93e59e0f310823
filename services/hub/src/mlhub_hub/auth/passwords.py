"""argon2id, off the event loop, and what a password must not be.

Hashes of bcrypt, which came from another deployment, are verified too; each is replaced when its owner comes in.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from mlhub_shared.errors import Temporary

MIN_LENGTH = 8
MAX_LENGTH = 512
"""Bounds the work of one hash; nobody types more."""

_BCRYPT = ("$2a$", "$2b$", "$2y$")
_BCRYPT_BYTES = 72
"""It never looked at more of a password."""

_AT_ONCE = 2
"""Each hash takes 19 MiB and most of a core."""
_PATIENCE = timedelta(seconds=20)

_TRIED_FIRST = """
    password password1 password12 password123 passw0rd p@ssw0rd p@ssword 12345678 123456789 1234567890 87654321
    11111111 00000000 12341234 12121212 qwertyui qwertyuiop qwerty12 qwerty123 qwertz123 1q2w3e4r 1q2w3e4r5t
    1qaz2wsx zaq12wsx qazwsxedc asdfghjk asdfghjkl abcd1234 abc12345 a1b2c3d4 letmein1 letmein123 iloveyou
    iloveyou1 sunshine princess football baseball superman starwars trustno1 whatever computer internet
    welcome1 welcome123 changeme changeme1 changeme123 administrator adminadmin admin123 admin1234 admin12345
    rootroot root1234 toortoor test1234 testtest default1 secret123 jupyter1 jupyter123 jupyterhub notebook
    notebook1 jupyterlab mlhub123 mlhubmlhub dragon123 monkey123 michelle jennifer michael1 charlie1
"""
_COMMON = frozenset(_TRIED_FIRST.split())


class TooBusy(Temporary):
    """More logins than this machine can check at once."""


def why_refused(password: str, name: str) -> str | None:
    """Why this may not be a password, as a sentence; None if it may."""
    if len(password) < MIN_LENGTH:
        return f"Use at least {MIN_LENGTH} characters."
    if len(password) > MAX_LENGTH:
        return f"Use at most {MAX_LENGTH} characters."
    if "\0" in password:
        return "A password can't contain a zero byte."
    plain = password.lower()
    if plain in _COMMON or len(set(plain)) < 3:
        return "This is one of the first passwords that anybody would try."
    if name and plain.strip("0123456789!.-_ ") == name.lower():
        return "Use something else than your name."
    return None


class Passwords:
    """Hashes and verifies in threads, a few at once."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """A salted hash that says how it was made; TooBusy if it is not its turn in time."""
        async with _turn(self._slots):
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, password: str, known: str | None) -> bool:
        """Is it the password? Takes as long for None, which stands for an unknown name."""
        if self._nobody is None:
            self._nobody = await self.hash(secrets.token_hex())
        if len(password) > MAX_LENGTH:
            password, known = "", None
        async with _turn(self._slots):
            matches = await asyncio.to_thread(partial(_matches, self._hasher, known or self._nobody, password))
        return matches and known is not None


def is_outdated(known: str) -> bool:
    """Whether a hash should be made anew as soon as the password is at hand."""
    return known.startswith(_BCRYPT)


@asynccontextmanager
async def _turn(slots: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        await asyncio.wait_for(slots.acquire(), _PATIENCE.total_seconds())
    except TimeoutError:
        raise TooBusy("too many people are logging in just now") from None
    try:
        yield
    finally:
        slots.release()


def _matches(hasher: PasswordHasher, known: str, password: str) -> bool:
    if is_outdated(known):
        return _matches_bcrypt(known, password)
    try:
        return hasher.verify(known, password)
    except (VerificationError, InvalidHashError):
        return False


def _matches_bcrypt(known: str, password: str) -> bool:
    try:
        return bcrypt.checkpw(password.encode()[:_BCRYPT_BYTES], known.encode())
    except ValueError:
        return False
