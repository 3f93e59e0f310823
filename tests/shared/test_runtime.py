"""The life of a service: a process of its own, told by signals, watched over HTTP."""

import asyncio
import json
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from mlhub_shared.contracts.policy import Policy
from mlhub_shared.runtime.health import Health
from mlhub_shared.runtime.http import create_app
from mlhub_shared.runtime.settings import PolicySettings
from tests.architecture.repository import ROOT
from tests.shared.toy_service import ToySettings
from tests.support.nats_server import PASSWORD, USER, NatsServer
from tests.support.ports import free_port
from tests.support.waiting import until, until_async

TOKEN = "the-internal-token-of-tests"
BOUND = 8.0
"""Seconds in which a service ends, whatever it waits for."""


class Toy:
    """A service process and a client for it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._log, self._environment, self.port = folder / "toy.log", environment, free_port()
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.shared.toy_service"),
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "MLHUB_TOY_HTTP_PORT": str(self.port)} | self._environment,
                stdout=log,
                stderr=log,
            )

    async def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Its exit code, and how long it took to end."""
        asked = time.monotonic()
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), BOUND), time.monotonic() - asked

    async def close(self) -> None:
        await self.client.aclose()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def problems(self) -> dict[str, str] | None:
        """What `/ready` says; None while nobody answers."""
        try:
            answer = await self.client.get("/ready")
        except httpx.TransportError:
            return None
        content = answer.json()
        assert content["ready"] is (answer.status_code == 200) is (not content["problems"])
        problems: dict[str, str] = content["problems"]
        return problems

    async def until_ready(self) -> None:
        async def ready() -> bool:
            return await self.problems() == {}

        await until_async(ready, within=20)

    async def metric(self, name: str) -> float:
        answer = await self.client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        values = [line.rpartition(" ")[2] for line in answer.text.splitlines() if line.startswith(name)]
        return float(values[0]) if values else 0.0

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]


def environment(server: NatsServer) -> dict[str, str]:
    return {
        "MLHUB_HUB_NAME": "test",
        "MLHUB_NATS_URL": server.url,
        "MLHUB_NATS_USER": USER,
        "MLHUB_NATS_PASSWORD": PASSWORD,
        "MLHUB_INTERNAL_TOKEN": TOKEN,
    }


@pytest.fixture
async def toy(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Toy]:
    toy = Toy(tmp_path, environment(nats_server))
    await toy.start()
    await toy.until_ready()
    yield toy
    await toy.close()


async def test_a_service_lives_and_ends_when_asked(toy: Toy) -> None:
    assert (await toy.client.get("/live")).json() == {"status": "live"}
    assert (await toy.client.get("/nothing")).status_code == 404
    for page in ("/docs", "/openapi.json", "/redoc"):
        assert (await toy.client.get(page)).status_code == 404
    code, took = await toy.end()
    assert (code, toy.events()[-2:]) == (0, ["toy.left", "service.ended"])
    assert took < 4


async def test_interrupt_ends_it_too(toy: Toy) -> None:
    code, _ = await toy.end(signal.SIGINT)
    assert code == 0


async def test_metrics_are_for_who_has_the_token(toy: Toy) -> None:
    for given in (None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer", f"Bearer {TOKEN}x"):
        headers = {"Authorization": given} if given else {}
        assert (await toy.client.get("/metrics", headers=headers)).status_code == 401
    right = await toy.client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert right.status_code == 200
    assert "mlhub_task_restarts" in right.text


@pytest.mark.parametrize("token", [None, SecretStr("")])
async def test_without_a_token_metrics_are_for_nobody(token: SecretStr | None) -> None:
    transport = httpx.ASGITransport(create_app("toy", Health(), token))
    async with httpx.AsyncClient(transport=transport, base_url="http://toy") as client:
        for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer None"}):
            assert (await client.get("/metrics", headers=headers)).status_code == 401


@pytest.mark.parametrize("how", ["raise", "return"])
async def test_a_task_that_fails_is_started_again_ever_later(toy: Toy, how: str) -> None:
    waits: list[float] = []
    for _ in range(3):
        await toy.client.post(f"/fail/{how}")

        async def failing() -> bool:
            return await toy.problems() == {"toy": "it was told to fail" if how == "raise" else "it ended"}

        await until_async(failing, within=20)
        began = time.monotonic()
        await toy.until_ready()
        waits.append(time.monotonic() - began)
    assert waits[2] > 2 * waits[0]
    assert await toy.metric('mlhub_task_restarts_total{task="toy"}') == 3


async def test_a_service_outlives_the_bus(toy: Toy, nats_server: NatsServer) -> None:
    await nats_server.kill()

    async def noticed() -> bool:
        return await toy.problems() == {"bus": "the bus is away"}

    await until_async(noticed)
    assert (await toy.client.get("/live")).status_code == 200
    await nats_server.start()
    await toy.until_ready()


async def test_it_ends_in_time_without_the_bus(toy: Toy, nats_server: NatsServer) -> None:
    await nats_server.kill()
    code, _ = await toy.end()
    assert code == 0


async def test_a_request_under_way_is_answered_before_the_end(toy: Toy) -> None:
    asking = asyncio.ensure_future(toy.client.get("/slow"))
    await asyncio.sleep(0.3)
    code, took = await toy.end()
    assert (await asking).json() == {"slow": "done"}
    assert code == 0
    assert took < 6


async def test_it_ends_in_time_before_it_ever_had_a_bus(nats_server: NatsServer, tmp_path: Path) -> None:
    await nats_server.kill()
    toy = Toy(tmp_path, environment(nats_server))
    await toy.start()
    try:
        await until(lambda: "bus.error" in toy.events(), within=20)
        code, _ = await toy.end()
        assert (code, "toy.built" in toy.events()) == (0, False)
    finally:
        await toy.close()


async def test_it_waits_for_a_bus_that_comes_later(nats_server: NatsServer, tmp_path: Path) -> None:
    await nats_server.kill()
    toy = Toy(tmp_path, environment(nats_server))
    await toy.start()
    try:
        await until(lambda: "bus.error" in toy.events(), within=20)
        problems = await toy.problems()
        assert problems is not None
        assert "it waits for the bus" in problems["bus"]
        assert (await toy.client.get("/live")).json() == {"status": "live"}, "nobody need start it again"
        assert (await toy.client.get("/slow")).status_code == 503
        await nats_server.start()
        await toy.until_ready()
        assert (await toy.client.get("/slow")).status_code == 200
    finally:
        await toy.close()


async def test_a_taken_port_is_an_error(toy: Toy, nats_server: NatsServer, tmp_path: Path) -> None:
    other = Toy(tmp_path / "..", environment(nats_server))
    other.port = toy.port
    await other.start()
    try:
        assert await asyncio.wait_for(other.process.wait(), 15) != 0
    finally:
        await other.close()


async def test_log_lines_are_json_with_the_name_of_the_service(toy: Toy) -> None:
    await toy.client.post("/fail/raise")
    await until(lambda: "task.failed" in toy.events())
    [failed] = [line for line in toy.lines() if line["event"] == "task.failed"]
    assert "it was told to fail" in failed["exception"]
    assert {line["service"] for line in toy.lines()} == {"toy"}
    assert all({"timestamp", "level"} <= line.keys() for line in toy.lines())
    written = json.dumps(toy.lines())
    assert PASSWORD not in written
    assert TOKEN not in written


def test_settings_come_from_variables_then_from_secret_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlhub_nats_password").write_text("from-a-file\n")
    (tmp_path / "MLHUB_INTERNAL_TOKEN").write_text("from-a-file")
    (tmp_path / "mlhub_toy_http_port").write_text("1234")
    tmp_path.chmod(stat.S_IRWXU)
    monkeypatch.setenv("MLHUB_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("MLHUB_INTERNAL_TOKEN", "from-a-variable")
    monkeypatch.setenv("HUB_NAME", "oldname")
    settings = ToySettings()
    assert settings.nats_password is not None
    assert settings.nats_password.get_secret_value() == "from-a-file"
    assert settings.internal_token is not None
    assert settings.internal_token.get_secret_value() == "from-a-variable"
    assert (settings.hub_name, settings.http_port) == ("oldname", 1234)
    assert "from-a" not in repr(settings)
    assert "from-a" not in repr(settings.bus("toy"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLHUB_HUB_NAME", "My-Hub"),
        ("MLHUB_TOY_HTTP_PORT", "65536"),
        ("MLHUB_LOG_LEVEL", "loud"),
    ],
)
def test_settings_that_can_not_be_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        ToySettings()


def test_the_policy_is_read_in_the_words_of_people(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PolicySettings().policy(images_allowed=False, gpus_allowed=False) == Policy()
    for name, value in {"MAX_CPU": "1.5", "MAX_MEM": "8G", "MAX_SHM": "", "MAX_DAYS_TO_LIVE": "7"}.items():
        monkeypatch.setenv(f"MLHUB_{name}", value)
    policy = PolicySettings().policy(images_allowed=False, gpus_allowed=True)
    assert policy == Policy(max_cpu=1.5, max_mem=8 * 2**30, max_days_to_live=7, gpus_allowed=True)


def test_health_is_asked_anew_each_time() -> None:
    problem: list[str] = []
    health = Health()
    health.require("fine", lambda: None)
    health.require("sometimes", lambda: problem[0] if problem else None)
    assert health.problems() == {}
    problem.append("broken")
    assert health.problems() == {"sometimes": "broken"}
