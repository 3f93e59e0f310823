"""A service with one route and tasks that fail as they are told to: `python -m tests.shared.toy_service`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from pydantic_settings import SettingsConfigDict

from mlhub_shared.runtime.service import Runtime, main
from mlhub_shared.runtime.settings import CommonSettings

log = structlog.get_logger(__name__)


class ToySettings(CommonSettings):
    """`MLHUB_TOY_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="MLHUB_TOY_", extra="ignore", populate_by_name=True)


@asynccontextmanager
async def build(runtime: Runtime) -> AsyncIterator[None]:
    failures = asyncio.Queue[str]()

    async def task() -> None:
        if (failure := await failures.get()) == "raise":
            raise RuntimeError("it was told to fail")
        log.info("toy.returned", failure=failure)

    @runtime.app.post("/fail/{how}")
    async def fail(how: str) -> dict[str, str]:
        failures.put_nowait(how)
        return {"told": how}

    @runtime.app.get("/slow")
    async def slow() -> dict[str, str]:
        await asyncio.sleep(1.5)
        return {"slow": "done"}

    runtime.keep_running("toy", task)
    log.info("toy.built")
    try:
        yield
    finally:
        log.info("toy.left")


if __name__ == "__main__":
    main("toy", ToySettings(), build)
