"""What every message on the bus carries."""

from datetime import UTC, datetime
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


def _now() -> datetime:
    return datetime.now(UTC)


def new_id() -> str:
    """A fresh id for a message or a correlation."""
    return uuid4().hex


class Message(BaseModel):
    """Base of commands and events. Unknown fields are ignored, so that a newer writer does not stop an older reader."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(default_factory=new_id)
    """Kept over retries: the bus drops a second copy by it."""

    at: AwareDatetime = Field(default_factory=_now)
    """When it was made, UTC."""

    requester: str
    """Who wanted it: `user:NAME` or `service:NAME`."""

    correlation_id: str = Field(default_factory=new_id)
    """The same in everything that follows from one request."""

    def encode(self) -> bytes:
        """The message as it goes over the wire."""
        return self.model_dump_json().encode()
