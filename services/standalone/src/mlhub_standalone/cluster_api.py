"""The Secrets of one namespace, by the API of Kubernetes, as the service account of a pod."""

import http.client
import json
import ssl
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlhub_standalone.errors import LauncherError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PATIENCE = 10.0
"""Seconds for one answer."""

_MERGE = "application/merge-patch+json"
_LABELS = {"app.kubernetes.io/part-of": "mlhub"}


class TryLater(LauncherError):
    """The API is away, or does not know of our rights yet."""


class SomebodyElseWasFirst(LauncherError):
    """A Secret is another one than was read."""


@dataclass(frozen=True)
class Found:
    """A Secret, or the lack of it."""

    data: Mapping[str, bytes] = field(repr=False, default_factory=dict)
    version: str | None = None
    """None: there is none."""


@dataclass(frozen=True)
class ClusterApi:
    """The API as one account sees it; every method blocks for a bounded time."""

    host: str
    port: int
    namespace: str
    token: str = field(repr=False)
    trusted: Path
    """Certificates of those who vouch for the API."""

    def read(self, name: str) -> Found:
        """A Secret; an empty one where there is none."""
        status, answer = self._ask("GET", f"/{name}")
        if status == http.client.NOT_FOUND:
            return Found()
        self._check(status, answer, f"Secret {name} can't be read")
        data = {key: b64decode(value) for key, value in (answer.get("data") or {}).items()}
        return Found(data, answer["metadata"]["resourceVersion"])

    def create(self, name: str, texts: Mapping[str, str]) -> None:
        """Make a Secret; SomebodyElseWasFirst where there is one already."""
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": _LABELS},
            "data": _encoded(texts),
        }
        self._check(*self._ask("POST", "", secret), f"Secret {name} can't be made")

    def add(self, name: str, texts: Mapping[str, str], *, version: str) -> None:
        """Add keys to a Secret; SomebodyElseWasFirst if it is not as it was read."""
        patch = {"metadata": {"resourceVersion": version}, "data": _encoded(texts)}
        self._check(*self._ask("PATCH", f"/{name}", patch), f"Secret {name} can't be changed")

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=PATIENCE, context=context)
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Accept": "application/json",
            "Content-Type": _MERGE if method == "PATCH" else "application/json",
        }
        try:
            context.load_verify_locations(self.trusted)
            text = json.dumps(body) if body is not None else None
            connection.request(method, f"/api/v1/namespaces/{self.namespace}/secrets{path}", text, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TryLater(f"the API of Kubernetes at {self.host} does not answer: {error}") from None
        finally:
            connection.close()
        return response.status, answer if isinstance(answer, dict) else {}

    def _check(self, status: int, answer: Mapping[str, Any], what: str) -> None:
        if status < http.client.BAD_REQUEST:
            return
        # Its words name who may not do what; no value of a Secret is ever in them.
        problem = f"{what}: {answer.get('message') or f'the API answers {status}'}"
        if status == http.client.CONFLICT:
            raise SomebodyElseWasFirst(problem)
        # Where roles are as new as this Job, or the API has just begun, it refuses for a moment.
        later = {http.client.UNAUTHORIZED, http.client.FORBIDDEN, http.client.TOO_MANY_REQUESTS, http.client.NOT_FOUND}
        if status in later or status >= http.client.INTERNAL_SERVER_ERROR:
            raise TryLater(problem)
        raise LauncherError(problem)


def in_cluster(environment: Mapping[str, str], account: Path | None = None) -> ClusterApi:
    """The API of the cluster that this process is a pod of; LauncherError where it is none."""
    folder = account or ACCOUNT
    try:
        return ClusterApi(
            host=environment["KUBERNETES_SERVICE_HOST"],
            port=int(environment["KUBERNETES_SERVICE_PORT"]),
            namespace=(folder / "namespace").read_text().strip(),
            token=(folder / "token").read_text().strip(),
            trusted=folder / "ca.crt",
        )
    except (KeyError, ValueError, OSError) as error:
        raise LauncherError(f"this is no pod with a service account: {error}") from None


def _encoded(texts: Mapping[str, str]) -> dict[str, str]:
    return {key: b64encode(text.encode()).decode() for key, text in texts.items()}
