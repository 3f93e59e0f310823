"""What the users of the first ML Hub are in this one: pure, from what its database says."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlhub_shared.contracts.arrivals import Arrival, Arrivals, ArrivingServer
from mlhub_shared.contracts.environment import RESERVED_ENV
from mlhub_shared.contracts.options import split_secrets
from mlhub_standalone.old_database import OldAccount, OldHub, OldServer, OldUser

_REPLACED = (" ,;.-@_", " ,;.-")
"""Characters that versions of the first ML Hub took out of names, once each; the first one became a zero."""

_BCRYPT = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")
_ON = {"on", "true", "1"}
_AS_THEY_ARE = ("image", "cpu_limit", "mem_limit", "days_to_live")


@dataclass(frozen=True)
class Translation:
    """Who comes, and what is to be told of it."""

    arrivals: Arrivals
    remarks: list[str] = field(default_factory=list)


def translate(old: OldHub, profiles: Mapping[str, str]) -> Translation:
    """Translate all of it. `profiles`: names of profiles by the image that they run."""
    remarks: list[str] = []
    users = {user.name: user for user in old.users}
    owners = _owners(old.accounts, users.keys())
    arrivals = []
    for name in dict.fromkeys([*users, *owners]):
        account = _account_of(name, owners.get(name, []), remarks)
        arrivals.append(_arrival(name, users.get(name), account, profiles, remarks))
    return Translation(Arrivals(arrivals=tuple(arrivals)), remarks)


def normalise(name: str, replaced: str = _REPLACED[0]) -> str:
    """The name that a user's things had, from the one he typed."""
    name, replacement = name.lower(), "0"
    for letter in replaced:
        if letter in name:
            name, replacement = name.replace(letter, replacement, 1), ""
    return name


def images(old: OldHub) -> list[str]:
    """All images that workspaces were made of."""
    found = (server.options.get("image") for user in old.users for server in user.servers)
    return sorted({image for image in found if isinstance(image, str) and image})


def _owners(accounts: tuple[OldAccount, ...], users: Collection[str]) -> dict[str, list[OldAccount]]:
    owners: dict[str, list[OldAccount]] = {}
    for account in accounts:
        names = [normalise(account.name, replaced) for replaced in _REPLACED]
        owners.setdefault(next((name for name in names if name in users), names[0]), []).append(account)
    return owners


def _account_of(name: str, candidates: list[OldAccount], remarks: list[str]) -> OldAccount | None:
    """The one account of a user; none where several people could come in as the same one."""
    exact = [account for account in candidates if account.name == name]
    chosen = exact or [account for account in candidates if account.is_authorized] or candidates
    if len(chosen) != 1:
        if chosen:
            remarks.append(
                f"{name}: the accounts {_listed(chosen)} were all of this one user, so none is taken: whoever it is "
                "signs up again, and an admin approves"
            )
        return None
    if others := [account for account in candidates if account is not chosen[0]]:
        remarks.append(f"{name}: {_listed(others)} came in as this user too, and can't any more")
    return _usable(name, chosen[0], remarks)


def _usable(name: str, account: OldAccount, remarks: list[str]) -> OldAccount | None:
    if not _BCRYPT.fullmatch(account.password_hash):
        remarks.append(f"{name}: the password is kept in a form that is not known here; sign up again")
        return None
    if account.name != name:
        remarks.append(f"{name}: signed up as {account.name!r}, and logs in as {name!r} from now on")
    if account.has_second_factor:
        remarks.append(f"{name}: had a second factor, which there is none of here; the password alone lets in")
    return account


def _arrival(
    name: str, user: OldUser | None, account: OldAccount | None, profiles: Mapping[str, str], remarks: list[str]
) -> Arrival:
    return Arrival(
        name=name,
        is_user=user is not None,
        is_admin=user is not None and user.is_admin,
        password_hash=account.password_hash if account else None,
        is_approved=account is not None and account.is_authorized,
        created_at=user.created_at if user else None,
        servers=tuple(_server(name, server, profiles, remarks) for server in user.servers) if user else (),
    )


def _server(user: str, server: OldServer, profiles: Mapping[str, str], remarks: list[str]) -> ArrivingServer:
    options, lost = translate_options(server.options)
    if (profile := profiles.get(options.get("image", ""))) is not None:
        options = {"profile": profile, **options}
        del options["image"]
    if lost:
        remarks.append(f"{user}/{server.name}: not taken over: {', '.join(lost)}")
    return ArrivingServer(name=server.name, user_options=options)


def translate_options(old: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Options as the form of the first ML Hub kept them, in our words; and the names of what is lost."""
    options: dict[str, Any] = {name: _plain(old[name]) for name in _AS_THEY_ARE if not _is_empty(old.get(name))}
    if not _is_empty(old.get("shm_size")):
        options["shm_size"] = _bytes(old["shm_size"])
    if not _is_empty(old.get("gpus")):
        options["gpus"] = re.sub(r"\s", "", str(old["gpus"]))
    if "is_mount_volume" in old:
        options["is_mount_volume"] = str(old["is_mount_volume"]).lower() in _ON
    environment, lost = _environment(old.get("env"))
    if environment:
        options["env"] = environment
    known = {*_AS_THEY_ARE, "shm_size", "gpus", "is_mount_volume", "env", "update"}
    return options, lost + sorted(str(name) for name in old.keys() - known)


def _environment(old: object) -> tuple[dict[str, str], list[str]]:
    """Secrets are not carried over: they lay in the clear, and here they are kept where nobody can read them again."""
    if not isinstance(old, dict):
        return {}, []
    texts = {str(name): str(value) for name, value in old.items()}
    secret = split_secrets({"env": texts})[1]
    kept = {
        name: value for name, value in texts.items() if name not in secret and not name.upper().startswith(RESERVED_ENV)
    }
    return kept, sorted(f"the variable {name}" for name in texts.keys() - kept.keys())


def _bytes(value: object) -> str:
    """A size of the engine's, where a bare number counts bytes; ours counts gigabytes."""
    text = str(value).strip().lower()
    match = re.fullmatch(r"([0-9]+)b?", text)
    return f"{-(-int(match[1]) // 1024)}K" if match else text


def _plain(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _listed(accounts: list[OldAccount]) -> str:
    return ", ".join(repr(account.name) for account in accounts)
