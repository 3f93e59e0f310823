"""A cluster that has a bus already: the chart takes no other in its place unasked."""

import json
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import helm_python
import pytest

from tests.support.helm import CHART, Values

_OFFERED = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": "apps/v1",
    "resources": [
        {"name": "statefulsets", "singularName": "statefulset", "kind": "StatefulSet", "namespaced": True, "verbs": []}
    ],
}
_PATH = "/apis/apps/v1/namespaces/mlhub/statefulsets/nats"

Upgrade = Callable[[int | None, Values], str]


@pytest.fixture
def upgrade() -> Iterator[Upgrade]:
    """Renders for a cluster with as many servers, or without any; what Helm says if it refuses."""
    answers: dict[str, Any] = {"/apis/apps/v1": _OFFERED}

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            status = HTTPStatus.OK if found else HTTPStatus.NOT_FOUND
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found or missing).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    def render(servers: int | None, nats: Values) -> str:
        answers.pop(_PATH, None)
        if servers is not None:
            meta = {"name": "nats", "namespace": "mlhub"}
            answers[_PATH] = {
                "kind": "StatefulSet",
                "apiVersion": "apps/v1",
                "metadata": meta,
                "spec": {"replicas": servers},
            }
        url = f"http://127.0.0.1:{server.server_port}"
        with (
            helm_python.Config(kube_apiserver=url, namespace="mlhub") as cluster,
            helm_python.Chart.load(CHART) as chart,
        ):
            try:
                cluster.render(chart, {"nats": nats}, name="mlhub", namespace="mlhub", is_upgrade=True)
            except helm_python.HelmError as error:
                return str(error)
        return ""

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield render
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("there", "wanted"), [(1, 3), (3, 1)])
def test_a_change_after_which_the_bus_begins_empty_is_refused(upgrade: Upgrade, there: int, wanted: int) -> None:
    assert f"nats.replicas: after a change from {there} to {wanted}, the bus begins empty" in upgrade(
        there, {"replicas": wanted}
    )
    assert upgrade(there, {"replicas": wanted, "storeMayBeLost": True}) == ""


def test_what_leaves_the_bus_as_it_is_passes(upgrade: Upgrade) -> None:
    for there, wanted in ((1, 1), (3, 3), (None, 1), (None, 3)):
        assert upgrade(there, {"replicas": wanted}) == ""
