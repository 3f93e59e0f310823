"""When and from where keys were last used, as the SSH gateways tell it."""

import asyncio

from sqlalchemy.orm import Session

from mlhub_hub.auth import keys
from mlhub_shared.bus import Bus, Delivery
from mlhub_shared.contracts.events import Event, EventKind


def follow_key_use(db: Session, bus: Bus) -> asyncio.Task[None]:
    """Keep what is told from now on in the database, until the bus is closed; nothing is missed between two hubs."""

    async def note(event: Event, _delivery: Delivery) -> None:
        fingerprint, address = event.detail.get("fingerprint"), event.detail.get("client")
        if isinstance(fingerprint, str):
            keys.note_use(db, fingerprint, when=event.at, address=str(address or ""))

    return bus.consume(
        stream=bus.subjects.events,
        durable="hub",
        filters=[bus.subjects.events_named(EventKind.SESSION_OPENED)],
        decode=Event.model_validate_json,
        handler=note,
        new_only=True,
    )
