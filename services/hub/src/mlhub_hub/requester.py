"""Who wants what happens now, for the audit stream; kept over the tasks that a request starts."""

from contextvars import ContextVar

from jupyterhub.handlers import BaseHandler

_REQUESTER: ContextVar[str | None] = ContextVar("requester", default=None)


def note_requester(handler: BaseHandler) -> None:
    """What follows from here is done for whoever makes this request."""
    _REQUESTER.set(requester_of(handler))


def requester() -> str:
    """For whom this is done; the hub itself where nobody asked."""
    return _REQUESTER.get() or "service:hub"


def asked_by() -> str | None:
    """For whom this is done; None where nobody asked."""
    return _REQUESTER.get()


def requester_of(handler: BaseHandler) -> str:
    """Who makes this request."""
    user = handler.current_user
    if user is None:
        return requester()
    return f"{'user' if getattr(user, 'kind', '') == 'user' else 'service'}:{user.name}"
