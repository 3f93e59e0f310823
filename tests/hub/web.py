"""A browser without a face: cookies, and forms with the token of the page they stand on."""

import re
from typing import Any

import httpx

_FORM_TOKEN = re.compile(r'name="_xsrf"\s+value="([^"]+)"')


class WebSession:
    """One person's session. `address`: where he seems to come from, as the proxy would say."""

    def __init__(self, url: str, *, address: str = "192.0.2.1") -> None:
        self.http = httpx.AsyncClient(
            base_url=url,
            timeout=30,
            trust_env=False,
            headers={"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "X-Real-IP": address},
        )

    async def close(self) -> None:
        await self.http.aclose()

    async def get(self, path: str, **query: str) -> httpx.Response:
        return await self.http.get(f"/hub/{path}", params=query or None)

    async def post(self, path: str, *, form: str | None = None, **data: Any) -> httpx.Response:
        """Send the form that stands on the page `form` (default: the page it is sent to)."""
        page = await self.get(form or path)
        token = _FORM_TOKEN.search(page.text)
        assert token is not None, f"{page.status_code}: there is no form on {form or path}"
        return await self.http.post(f"/hub/{path}", data={**data, "_xsrf": token[1]})

    async def login(self, name: str, password: str) -> httpx.Response:
        return await self.post("login", username=name, password=password)

    async def sign_up(self, name: str, password: str, **fields: str) -> httpx.Response:
        fields = {"username": name, "password": password, "password_again": password} | fields
        return await self.post("signup", **fields)

    async def is_logged_in(self) -> bool:
        return (await self.get("account")).status_code == 200


def field_error(page: str, field: str) -> str | None:
    """What a page says beside a field."""
    found = re.search(rf'id="{field}-error"[^>]*>([^<]*)<', page)
    return found[1] if found else None


def whole(response: httpx.Response) -> dict[str, Any]:
    """What an outsider can tell two answers apart by."""
    text = _FORM_TOKEN.sub("", response.text)
    text = re.sub(r'data-xsrf="[^"]*"', "", text)
    return {"status": response.status_code, "text": text}
