"""JupyterHub's log lines in the form of all others, and of a request only what is nobody's secret."""

import logging
import re

import structlog
from jupyterhub.handlers import BaseHandler
from jupyterhub.metrics import prometheus_log_method
from tornado import web

log = structlog.get_logger("mlhub_hub.requests")

_QUIET_PATHS = ("/hub/health", "/hub/metrics", "/hub/static/", "/hub/mlhub-static/")


_QUERY = re.compile(r"\?[^\s'\")]+")
_TOKEN = re.compile(r"(/ssh-setup/)[A-Za-z0-9_-]+")


def shown_path(path: str) -> str:
    """A path as logs may have it: without the token that some end with."""
    return _TOKEN.sub(r"\1...", path)


class WithoutQueries(logging.Filter):
    """Cuts queries and tokens off the addresses that tornado and JupyterHub put into their messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, changed where it must be."""
        if isinstance(record.msg, str):
            record.msg, record.args = shown_path(_QUERY.sub("?...", record.getMessage())), ()
        return True


def log_request(handler: web.RequestHandler) -> None:
    """One line for each request. Without its query: tokens and options come in there."""
    request, status = handler.request, handler.get_status()
    fields = {
        "status": status,
        "method": request.method,
        "path": shown_path(request.path),
        "user": _user_of(handler),
        "address": request.remote_ip,
        "milliseconds": round(1000 * request.request_time(), 1),
    }
    if status >= 500:
        log.error("request", **fields)
    elif request.path.startswith(_QUIET_PATHS) or status == 304:
        log.debug("request", **fields)
    else:
        log.info("request", **fields)
    prometheus_log_method(handler)


def _user_of(handler: web.RequestHandler) -> str | None:
    if not isinstance(handler, BaseHandler):
        return None
    try:
        user = handler.current_user
    except (web.HTTPError, RuntimeError):
        return None
    return getattr(user, "name", None)
