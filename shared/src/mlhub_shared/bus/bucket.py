"""A key-value bucket of one model, with compare-and-set."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from mlhub_shared.bus.connection import MARKERS_TTL, PATIENCE, Connection, Raw
from mlhub_shared.errors import Conflict, Permanent

M = TypeVar("M", bound=BaseModel)

_OPERATION, _MARKER_REASON = "KV-Operation", "Nats-Marker-Reason"


@dataclass(frozen=True)
class Entry(Generic[M]):
    """A value and the revision to compare with when it is changed."""

    value: M
    revision: int


class Bucket(Generic[M]):
    """Reads and writes one bucket; keys are `[-/_=.a-zA-Z0-9]+`."""

    def __init__(self, connection: Connection, name: str, model: type[M]) -> None:
        self.name, self.model = name, model
        self.connection = connection

    async def get(self, key: str, *, patience: timedelta = PATIENCE) -> Entry[M] | None:
        """The value now in the bucket, None if there is none; Permanent if it can't be read as the model."""
        raw = await self.connection.last(self.stream, self._subject(key), patience=patience)
        if raw is None or is_gone(raw):
            return None
        try:
            return Entry(self.model.model_validate_json(raw.data), raw.sequence)
        except ValidationError as error:
            raise Permanent(f"{self.name}/{key} can't be read as {self.model.__name__}") from error

    async def put(self, key: str, value: M, *, ttl: timedelta | None = None, patience: timedelta = PATIENCE) -> int:
        """Write whatever was there before; returns the revision."""
        return await self._write(key, value, expect=None, ttl=ttl, patience=patience)

    async def create(self, key: str, value: M) -> int:
        """Write where nothing is; Conflict if there is something."""
        try:
            return await self._write(key, value, expect=0, ttl=None)
        except Conflict:
            # What lies there may be no more than the marker of what was.
            raw = await self.connection.last(self.stream, self._subject(key))
            if raw is not None and not is_gone(raw):
                raise
        return await self._write(key, value, expect=raw.sequence if raw else 0, ttl=None)

    async def update(self, key: str, value: M, *, last: int) -> int:
        """Write over revision `last`; Conflict if it is not the newest any more."""
        return await self._write(key, value, expect=last, ttl=None)

    async def delete(self, key: str, *, last: int | None = None) -> None:
        """Remove a key, whether it is there or not; Conflict if `last` is given and not the newest."""
        # With a TTL the marker that tells the watches goes too; else one would stay for every workspace ever made.
        await self.connection.publish(
            self._subject(key), b"", headers={_OPERATION: "DEL"}, expect=last, ttl=MARKERS_TTL
        )

    @property
    def stream(self) -> str:
        """The stream behind the bucket."""
        return f"KV_{self.name}"

    def _subject(self, key: str) -> str:
        return f"$KV.{self.name}.{key}"

    async def _write(
        self, key: str, value: M, *, expect: int | None, ttl: timedelta | None, patience: timedelta = PATIENCE
    ) -> int:
        data = value.model_dump_json(exclude_defaults=True).encode()
        return await self.connection.publish(self._subject(key), data, expect=expect, ttl=ttl, patience=patience)


def is_gone(raw: Raw) -> bool:
    """A marker of a deleted or expired key."""
    return _OPERATION in raw.headers or _MARKER_REASON in raw.headers
