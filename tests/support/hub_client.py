"""The hub as its REST API and its pages show it."""

import json
import re
import ssl
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx


class HubClient:
    """The REST API, with the rights of a token, through the public port."""

    def __init__(self, url: str, token: str, *, trust: ssl.SSLContext | bool = True) -> None:
        self.url, self.token = url, token
        # Not keeping connections: a test kills what is at their other end.
        self._http = httpx.Client(
            base_url=f"{url}/hub/api",
            headers={"Authorization": f"token {token}"},
            timeout=30,
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
            verify=trust,
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def request(self, method: str, path: str, **fields: Any) -> httpx.Response:
        """Any request to the API."""
        return self._http.request(method, path, **fields)

    def insist(self, method: str, path: str, *, within: float = 60, **fields: Any) -> httpx.Response:
        """The same, again and again until the hub answers: a part of the way may be dead at the moment."""
        deadline = time.monotonic() + within
        while True:
            try:
                answer = self.request(method, path, **fields)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code < 500:
                return answer
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path}: {answer and answer.text}")
            time.sleep(0.2)

    def add_user(self, name: str) -> None:
        """A user who may log in, or is there already."""
        answer = self.insist("POST", f"/users/{quote(name)}")
        assert answer.status_code in {201, 409}, answer.text

    def spawn(self, user: str, server: str = "", **options: Any) -> httpx.Response:
        """Ask for a workspace."""
        return self.insist("POST", _server(user, server), json=options)

    def stop(self, user: str, server: str = "") -> httpx.Response:
        """Ask for its end."""
        return self.insist("DELETE", _server(user, server))

    def delete(self, user: str, server: str) -> httpx.Response:
        """Ask for its end and that of its data."""
        return self.insist("DELETE", _server(user, server), json={"remove": True})

    def server(self, user: str, server: str = "") -> dict[str, Any]:
        """What the hub says of a workspace; empty if it is stopped or there is none."""
        answer = self.insist("GET", f"/users/{quote(user)}")
        servers: dict[str, dict[str, Any]] = answer.json().get("servers", {})
        return servers.get(server, {})

    def is_ready(self, user: str, server: str = "") -> bool:
        """The hub says that a workspace can be used."""
        return bool(self.server(user, server).get("ready"))

    def is_gone(self, user: str, server: str = "") -> bool:
        """The hub says that a workspace is stopped, and not about to change."""
        return not self.server(user, server)

    def progress(self, user: str, server: str = "", *, within: float = 60) -> Iterator[dict[str, Any]]:
        """What a start says of itself, as it comes, until it is over."""
        path = f"{_server(user, server)}/progress"
        with self._http.stream("GET", path, timeout=within) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    def workspace(self, method: str, user: str, path: str, server: str = "", **fields: Any) -> httpx.Response:
        """A request to a workspace itself, through the public port."""
        return self._http.request(method, f"{self.url}{base_url(user, server)}{path}", **fields)


class Session:
    """A browser without a face: cookies, forms and their XSRF token."""

    def __init__(self, url: str, *, trust: ssl.SSLContext | bool = True) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, follow_redirects=True, timeout=30, trust_env=False, verify=trust)

    def close(self) -> None:
        """Let go of the connections."""
        self.http.close()

    def get(self, path: str, **fields: Any) -> httpx.Response:
        """A page."""
        return self.http.get(path, **fields)

    def post(self, path: str, *, form: str | None = None, **data: str) -> httpx.Response:
        """Send a form, with the token of the page it stands on (default: the page it is sent to)."""
        page = self.http.get(form or path)
        token = re.search(r'name="_xsrf"[^>]*value="([^"]+)"', page.text)
        value = token[1] if token else self.http.cookies.get("_xsrf", path="/hub/") or ""
        return self.http.post(path, data={**data, "_xsrf": value})

    def login(self, user: str, password: str) -> httpx.Response:
        """Log in by the form."""
        return self.post("/hub/login", username=user, password=password)


def base_url(user: str, server: str = "") -> str:
    """Where a workspace lies below the public address."""
    return "/".join(["", "user", quote(user), *([quote(server)] if server else []), ""])


def _server(user: str, server: str) -> str:
    return f"/users/{quote(user)}/servers/{quote(server)}" if server else f"/users/{quote(user)}/server"
