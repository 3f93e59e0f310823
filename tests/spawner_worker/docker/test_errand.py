"""What the worker has a container of its own do."""

import pytest

from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.docker import errand
from mlhub_spawner_worker.backends.docker.engine import Engine
from mlhub_spawner_worker.backends.docker.errand import run_errand
from tests.spawner_worker.docker.conftest import Stand
from tests.support.attach_places import ENGINE_URL, PYTHON_IMAGE


async def test_an_errand_that_does_not_end_is_given_up_and_leaves_nothing(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(ENGINE_URL, stand.hub)
    await engine.open()
    try:
        said = await run_errand(engine, stand.hub, "errand", ["echo", "done"], image=PYTHON_IMAGE, host={})
        assert said == "done\n"
        with pytest.raises(BackendError, match="ended with 1"):
            await run_errand(engine, stand.hub, "errand", ["false"], image=PYTHON_IMAGE, host={})
        monkeypatch.setattr(errand, "_WITHIN", 3)
        with pytest.raises(Temporary, match="took too long"):
            await run_errand(engine, stand.hub, "errand", ["sleep", "60"], image=PYTHON_IMAGE, host={})
        left = await stand.docker.containers.list(all=True, filters={"name": [f"mlhub-errand-{stand.hub}"]})
        assert left == []
    finally:
        await engine.aclose()
