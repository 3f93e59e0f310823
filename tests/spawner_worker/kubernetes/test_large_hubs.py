"""Hubs with thousands of volumes: nobody may hold all of them as the API tells them."""

import asyncio
import sys
from pathlib import Path

from mlhub_shared.contracts.workspace import Phase
from mlhub_spawner_worker.backends.kubernetes import marks, objects
from tests.spawner_worker.kubernetes.conftest import HUB, Stand
from tests.support.kube.resources import BY_PLURAL
from tests.support.kube_backend import profile, rules

VOLUMES, SIZE = 3_000, 20_000
"""60 MB in all, were they held."""
MOST_KB = 30_000
WITHIN = 120


def fill(stand: Stand) -> None:
    """Volumes of people who are not there; most of a thing is of no interest to the worker."""
    for number in range(VOLUMES):
        record = stand.record(f"user{number:04}", phase=Phase.STOPPED)
        claim = objects.claim(record, profile())
        metadata = {
            **claim["metadata"],
            "namespace": stand.cluster.namespace,
            "annotations": {**claim["metadata"]["annotations"], marks.RECORD: record.model_dump_json()},
            "managedFields": [
                {"manager": "somebody", "fieldsV1": {"f:long": f"{number}" * (SIZE // len(f"{number}"))}}
            ],
        }
        stand.cluster.store.add(
            BY_PLURAL["persistentvolumeclaims"], {**claim, "metadata": metadata, "status": {"phase": "Bound"}}
        )


async def test_an_inventory_holds_a_page_at_a_time(stand: Stand) -> None:
    fill(stand)
    kubeconfig = stand.cluster.kubeconfig(stand.folder / "other", stand.cluster.token(rules()))
    script = Path(__file__).with_name("inventory_peak.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.spawner_worker.kubernetes.{script.stem}",
        str(kubeconfig),
        HUB,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), WITHIN)
    finally:
        if process.returncode is None:
            process.kill()
    found, grown = map(int, out.split()[-2:])
    assert found == VOLUMES
    assert grown < MOST_KB


async def test_kinds_are_listed_one_after_the_other(stand: Stand) -> None:
    fill(stand)
    async with stand.backend() as backend:
        await stand.run(backend, stand.job("user0000"))
        for ask, expected in ((backend.inventory, VOLUMES), (backend.resources, VOLUMES + 1)):
            stand.cluster.forget_requests()
            answer = await ask()
            asked = [call.resource for call in stand.cluster.requests if call.verb == "list"]
            assert len(asked) == VOLUMES // 100 + 1, "no page is so long that nothing else is done meanwhile"
            assert asked in (sorted(asked), sorted(asked, reverse=True)), "pages of one kind, then of the other"
            assert len(answer) == expected
