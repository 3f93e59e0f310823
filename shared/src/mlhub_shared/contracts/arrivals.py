"""Users who come from another deployment, as the hub takes them in, and what it says of each."""

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict


class ArrivingServer(BaseModel):
    """A workspace that somebody had; the default one has no name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    user_options: dict[str, Any] = {}
    """In this hub's words, without secret values."""


class Arrival(BaseModel):
    """Somebody who had an account, workspaces, or both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    is_user: bool = True
    """Has come in there; else there is but an account."""
    is_admin: bool = False
    password_hash: str | None = None
    """argon2 or bcrypt. None: there is no account, somebody else says who he is."""
    is_approved: bool = False
    created_at: AwareDatetime | None = None
    servers: tuple[ArrivingServer, ...] = ()


class Arrivals(BaseModel):
    """All who come."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arrivals: tuple[Arrival, ...] = ()


class Reception(BaseModel):
    """What became of one of them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    taken: tuple[str, ...] = ()
    """What is new here: `user`, `account`, `workspace gpu1`, ..."""
    kept: tuple[str, ...] = ()
    """What was here before, and was left as it is."""
    remarks: tuple[str, ...] = ()
    """Sentences: what was not taken, or will not work as it is."""


class Receptions(BaseModel):
    """What became of all of them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    receptions: tuple[Reception, ...] = ()
