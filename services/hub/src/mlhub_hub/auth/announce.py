"""Events about people, told to the audit stream without making anybody wait for it."""

from datetime import timedelta

import structlog

from mlhub_hub.context import SETTINGS_KEY, HubContext
from mlhub_shared.contracts.events import Detail, Event, EventKind
from mlhub_shared.errors import MLHubError

log = structlog.get_logger(__name__)

_PATIENCE = timedelta(seconds=30)


def announce(settings: dict[str, object], kind: EventKind, user: str, *, by: str, **detail: Detail) -> None:
    """Tell what happened to a user; `settings` are the web application's. Returns at once, whatever the bus does."""
    announce_event(settings, Event(kind=kind, user=user, requester=f"user:{by}", detail=detail))


def announce_event(settings: dict[str, object], event: Event) -> None:
    """Tell an event that is made already; returns at once too."""
    context = settings.get(SETTINGS_KEY)
    if isinstance(context, HubContext):
        context.bus.run(_emit(context, event))


async def _emit(context: HubContext, event: Event) -> None:
    try:
        await context.bus.emit(event, patience=_PATIENCE)
    except MLHubError as error:
        log.error("event.lost", kind=event.kind, user=event.user, error=str(error))
