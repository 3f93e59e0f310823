"""Who gets in, and that nobody learns why not."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import asyncssh
import pytest

from mlhub_shared.contracts.services import ssh_key_key
from mlhub_ssh_gateway.keys import load_or_make
from tests.ssh_gateway.place import Place
from tests.support.hub_api import ScriptedHub
from tests.support.openssh import OpenSsh, Ran, execute
from tests.support.waiting import until_async

DENIED = "Permission denied (publickey,password)"


async def enter(client: OpenSsh, login: str) -> str:
    """What a login ends as: `in`, or the client's complaint."""
    ran = await client.run(login, "echo in")
    return ran.stdout.decode().strip() or ran.stderr.strip().partition(": ")[2].rstrip(".")


async def by_token(place: Place, login: str, token: str) -> Ran:
    """Log in with a token in the place of a password, as a person would type it."""
    askpass = place.folder / "askpass"
    askpass.write_text(f"#!/bin/sh\nprintf %s '{token}'\n")
    askpass.chmod(0o700)
    known_hosts = place.folder / "known"
    options = {
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": str(known_hosts),
        "PubkeyAuthentication": "no",
        "NumberOfPasswordPrompts": "1",
        "LogLevel": "ERROR",
    }
    listed = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    ssh = ["ssh", "-F", "none", *listed, "-p", str(place.settings.listen_port), f"{login}@127.0.0.1", "echo in"]
    return await execute("env", f"SSH_ASKPASS={askpass}", "SSH_ASKPASS_REQUIRE=force", *ssh)


def public_file(path: Path) -> bytes:
    return path.with_name(f"{path.name}.pub").read_bytes()


async def test_all_refusals_look_the_same(place: Place) -> None:
    await place.put("bob")
    alice, nobody = await place.client("alice"), await place.client(None)
    assert await enter(alice, "alice") == "in"
    refused = [
        await enter(nobody, "alice"),  # a key that nobody registered
        await enter(alice, "bob"),  # somebody else's workspace
        await enter(alice, "stranger"),  # a user that does not exist
        await enter(alice, "bob--gpu1"),  # a server that does not exist
        await enter(alice, ".."),
    ]
    assert refused == [DENIED] * 5


async def test_a_key_lets_in_while_it_is_registered(place: Place) -> None:
    client = await place.client("alice")
    assert await enter(client, "alice") == "in"
    await place.bus.ssh_keys.delete(ssh_key_key(client.key.get_fingerprint()))

    async def is_denied() -> bool:
        return await enter(client, "alice") == DENIED

    await until_async(is_denied)


async def test_a_fingerprint_alone_is_no_key(place: Place) -> None:
    client, other = await place.client(None), await place.client("alice")
    known = await place.bus.ssh_keys.get(ssh_key_key(other.key.get_fingerprint()))
    assert known is not None
    forged = known.value.model_copy(update={"fingerprint": client.key.get_fingerprint()})
    await place.bus.ssh_keys.put(ssh_key_key(client.key.get_fingerprint()), forged)
    assert await enter(client, "alice") == DENIED


async def test_an_offered_key_of_somebody_else_gives_nothing(place: Place, tmp_path: Path) -> None:
    """Bob's public key is offered, as anybody can, before alice signs with her own."""
    await place.put("bob")
    bob, alice = await place.client("bob"), await place.client("alice")
    (tmp_path / "bob.pub").write_text(bob.public_line)
    offered = ("-o", f"IdentityFile={tmp_path / 'bob.pub'}")
    ran = await alice.run("bob", "echo in", options=offered)
    assert (ran.status, ran.stdout) == (255, b"")
    ran = await alice.run("alice", "pwd", options=offered)
    assert ran.stdout.decode().strip() == str(place.directory("alice"))


async def test_owners_get_in_without_the_hub_and_nobody_else_does(place: Place, hub: ScriptedHub) -> None:
    alice, root = await place.client("alice"), await place.client("root")
    assert await enter(root, "alice") == "in"
    hub.is_down = True
    assert await enter(alice, "alice") == "in"
    assert await enter(root, "alice") == DENIED


async def test_an_admin_enters_every_workspace(place: Place) -> None:
    await place.put("alice", "gpu1")
    root = await place.client("root")
    assert (await root.run("alice--gpu1", "pwd")).stdout.decode().strip() == str(place.directory("alice", "gpu1"))


async def test_a_share_lets_into_its_server_alone(place: Place, hub: ScriptedHub) -> None:
    await place.put("alice", "gpu1")
    bob = await place.client("bob")
    hub.shares["bob", "alice", "gpu1"] = ["access:servers!server=alice/gpu1"]
    assert await enter(bob, "alice--gpu1") == "in"
    assert await enter(bob, "alice") == DENIED
    hub.shares["bob", "alice", "gpu1"] = ["read:servers!server=alice/gpu1"]
    assert await enter(bob, "alice--gpu1") == DENIED


async def test_a_share_with_a_group_lets_its_members_in(place: Place, hub: ScriptedHub) -> None:
    hub.group_shares["bob", "alice", ""] = ["access:servers!server=alice/"]
    assert await enter(await place.client("bob"), "alice") == "in"


async def test_a_token_is_a_password(place: Place, hub: ScriptedHub) -> None:
    hub.add_token("of-alice", "alice", "access:servers!user=alice")
    hub.add_token("for-other-things", "alice", "read:users!user=alice")
    hub.add_token("of-bob", "bob", "access:servers!user=bob")
    hub.add_token("of-automation", "automation", "access:servers", kind="service")
    assert (await by_token(place, "alice", "of-alice")).stdout == b"in\n"
    assert (await by_token(place, "alice", "of-automation")).stdout == b"in\n"
    for token in ("for-other-things", "of-bob", "of-nobody", ""):
        ran = await by_token(place, "alice", token)
        assert (ran.status, ran.stdout) == (255, b"")
        assert DENIED in ran.stderr


async def test_a_connection_may_guess_three_times(place: Place, hub: ScriptedHub) -> None:
    guesses = iter(f"guess-{number}" for number in range(50))

    class Guesser(asyncssh.SSHClient):
        def password_auth_requested(self) -> str | None:
            return next(guesses)

    with pytest.raises((asyncssh.Error, OSError, StopIteration)):
        async with place.connect("alice", client_factory=Guesser):
            pass
    assert sum(path == "GET /hub/api/user" for path in hub.asked) == 3


@pytest.mark.parametrize("user", ["a--b", "a.b@c", "ä-ö", "x--y--z", "a-"])
async def test_every_user_name_can_be_typed(place: Place, user: str) -> None:
    client = await place.client(user)
    await place.put(user)
    await place.put(user, "gpu--1")
    assert (await client.run(user, "pwd")).stdout.decode().strip() == str(place.directory(user))
    ran = await client.run(f"{user}--gpu--1", "pwd")
    assert ran.stdout.decode().strip() == str(place.directory(user, "gpu--1"))


async def test_a_visitors_name_means_the_workspace_that_exists(place: Place, hub: ScriptedHub) -> None:
    root = await place.client("root")
    hub.add_user("a--b")
    await place.put("a", "b")
    assert (await root.run("a--b", "pwd")).stdout.decode().strip() == str(place.directory("a", "b"))
    await place.put("a--b")
    assert (await root.run("a--b", "pwd")).stdout.decode().strip() == str(place.directory("a--b"))


async def test_only_ed25519_is_shown_and_it_is_what_the_file_says(place: Place) -> None:
    scan = await execute("ssh-keyscan", "-p", str(place.settings.listen_port), "127.0.0.1")
    shown = [line.split() for line in scan.stdout.splitlines()]
    public = public_file(place.settings.host_key_file).split()
    assert [words[1:3] for words in shown] == [public[:2]]
    assert public[0] == b"ssh-ed25519"


async def test_both_keys_are_kept_over_a_restart(quiet_place: Place) -> None:
    files = [quiet_place.settings.host_key_file, quiet_place.settings.client_key_file]
    seen = []
    for _ in range(2):
        async with quiet_place.gateway():
            seen.append([(path.read_bytes(), public_file(path)) for path in files])
    assert seen[0] == seen[1]
    assert quiet_place.settings.host_key_file.stat().st_mode & 0o777 == 0o600


def test_gateways_that_start_together_come_to_have_one_key(tmp_path: Path) -> None:
    path, gate = tmp_path / "keys" / "host_key", Barrier(8)

    def load() -> str:
        gate.wait(20)
        return load_or_make(path).get_fingerprint()

    with ThreadPoolExecutor(8) as pool:
        keys = {future.result() for future in [pool.submit(load) for _ in range(8)]}
    assert len(keys) == 1
    assert sorted(file.name for file in path.parent.iterdir()) == ["host_key", "host_key.pub"]
