"""Ends that are remembered for those who wait for them."""

import contextlib
from typing import Any

from mlhub_shared.contracts.workspace import WorkspaceRecord
from mlhub_spawner_worker.backends.kubernetes import marks
from mlhub_spawner_worker.backends.kubernetes.client import KubeClient
from mlhub_spawner_worker.backends.kubernetes.pods import Pods
from tests.support.makers import record

CROWD = 2_500
"""More than are remembered of those that nobody waits for."""


def pod(of: WorkspaceRecord) -> dict[str, Any]:
    """One that was deleted, and has ended."""
    metadata = {
        "name": of.name,
        "uid": of.name,
        "resourceVersion": "1",
        "labels": marks.labels(of.workspace),
        "annotations": marks.of_pod(of, port=8888, home="/home"),
    }
    ended = {"name": "workspace", "state": {"terminated": {"exitCode": 7}}}
    return {"metadata": metadata, "status": {"phase": "Failed", "containerStatuses": [ended]}}


def test_whoever_waits_learns_how_it_ended_however_many_end_at_once() -> None:
    pods = Pods(KubeClient(kubeconfig=None, namespace=None), "", left=lambda _: None)
    things = [pod(record(f"user{number}")) for number in range(CROWD)]
    names = [thing["metadata"]["name"] for thing in things]
    waited, others = names[::2], names[1::2]
    with contextlib.ExitStack() as waiting:
        for name in waited:
            waiting.enter_context(pods.following(name))
        for kind in ("ADDED", "DELETED"):
            for thing in things:
                pods.changed(kind, thing)
        ends = {name for name in names if pods.end(name) is not None}
        assert ends >= set(waited)
        end = pods.end(waited[0])
        assert end is not None
        assert end.exit.code == 7
        assert len(ends & set(others)) == 1_000, "the newest of all others"
    kept = [name for name in names if pods.end(name) is not None]
    assert len(kept) == 1_000, "nobody waits any more"
    pods.forget(kept[0])
    assert pods.end(kept[0]) is None
