"""`python -m mlhub_spawner_worker`."""

import contextlib
from collections.abc import AsyncIterator

from mlhub_shared.runtime import configuration
from mlhub_shared.runtime.service import Runtime, main
from mlhub_spawner_worker.factory import running_worker
from mlhub_spawner_worker.settings import SpawnerWorkerSettings


def run() -> None:
    """Run the worker that the environment describes until it is asked to end."""
    settings = configuration.load(SpawnerWorkerSettings)

    @contextlib.asynccontextmanager
    async def build(runtime: Runtime) -> AsyncIterator[None]:
        async with running_worker(runtime, settings):
            yield

    main("spawner-worker", settings, build)


if __name__ == "__main__":
    run()
