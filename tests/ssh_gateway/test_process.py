"""The gateway as a process of its own."""

import asyncio
import os
import signal
import sys

import httpx

from mlhub_shared.runtime.service import DRAIN
from tests.ssh_gateway.place import Place
from tests.support.hub_api import SERVICE_TOKEN
from tests.support.nats_server import PASSWORD, USER
from tests.support.ports import free_port
from tests.support.waiting import until_async

TOKEN = "the-internal-token-of-the-test"


async def start(place: Place, http_port: int) -> asyncio.subprocess.Process:
    settings = place.settings
    environment = {
        "PATH": os.environ["PATH"],
        "MLHUB_HUB_NAME": "test",
        "MLHUB_NATS_URL": place.nats_server.url,
        "MLHUB_NATS_USER": USER,
        "MLHUB_NATS_PASSWORD": PASSWORD,
        "MLHUB_INTERNAL_TOKEN": TOKEN,
        "MLHUB_SSH_GATEWAY_HTTP_PORT": str(http_port),
        "MLHUB_SSH_GATEWAY_LISTEN_PORT": str(settings.listen_port),
        "MLHUB_SSH_GATEWAY_HOST_KEY_FILE": str(settings.host_key_file),
        "MLHUB_SSH_GATEWAY_CLIENT_KEY_FILE": str(settings.client_key_file),
        "MLHUB_SSH_GATEWAY_HUB_API_URL": settings.hub_api_url,
        "MLHUB_SSH_GATEWAY_HUB_API_TOKEN": SERVICE_TOKEN,
        "MLHUB_SSH_GATEWAY_START_TIMEOUT": "90",
    }
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "mlhub_ssh_gateway", env=environment)


async def test_it_serves_is_killed_serves_again_and_ends_when_asked(quiet_place: Place) -> None:
    await quiet_place.put("alice")
    alice = await quiet_place.client("alice")
    port = free_port()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

        async def is_ready() -> bool:
            try:
                return (await http.get("/ready")).status_code == 200
            except httpx.HTTPError:
                return False

        for number in (signal.SIGKILL, signal.SIGTERM):
            process = await start(quiet_place, port)
            try:
                await until_async(is_ready, within=20)
                assert (await alice.run("alice", "echo in")).stdout == b"in\n"
                if number is signal.SIGTERM:
                    metrics = (await http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).text
                    assert 'mlhub_ssh_logins_total{result="accepted"} 1.0' in metrics
            finally:
                process.send_signal(number)
                status = await asyncio.wait_for(process.wait(), DRAIN + 5)
            assert status == (0 if number is signal.SIGTERM else -signal.SIGKILL)
