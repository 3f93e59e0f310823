"""What people and programs get who are not let through."""

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template

from fastapi import Response
from fastapi.responses import HTMLResponse, JSONResponse

from mlhub_shared.errors import MLHubError

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_RELOAD = '<meta http-equiv="refresh" content="5">'


class Refusal(MLHubError):
    """The answer to somebody who does not get through."""

    def __init__(
        self,
        status: int,
        title: str,
        message: str,
        *,
        link: tuple[str, str] | None = None,
        reloads: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.title, self.link, self.reloads = status, title, link, reloads
        self.headers = dict(headers or {})


class Pages:
    """Words for both."""

    def __init__(self, base: str) -> None:
        self._home = (f"{base}hub/home", "See your workspaces")
        self._template = Template((files("mlhub_proxy") / "tools" / "refused.html").read_text())

    def answer(self, refusal: Refusal, *, wants_html: bool) -> Response:
        """A page, or JSON."""
        headers = _HEADERS | refusal.headers
        if not wants_html:
            return JSONResponse({"status": refusal.status, "message": str(refusal)}, refusal.status, headers)
        links = [refusal.link, self._home] if refusal.link else [self._home]
        page = self._template.substitute(
            title=escape(refusal.title),
            message=escape(str(refusal)),
            reload=_RELOAD if refusal.reloads else "",
            links="\n".join(f'    <p><a href="{escape(url)}">{escape(words)}</a></p>' for url, words in links),
        )
        return HTMLResponse(page, refusal.status, headers)
