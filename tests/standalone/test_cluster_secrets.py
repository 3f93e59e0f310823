"""The secrets of a deployment on Kubernetes, made by the Job with the rights that its Role gives, and no more."""

import asyncio
import os
import ssl
import sys
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mlhub_shared.tasks import end_tasks
from mlhub_standalone import credentials
from mlhub_standalone.cluster_secrets import COOKIES, ROUTES, SECRETS
from tests.support.authority import Authority
from tests.support.kube import FakeCluster
from tests.support.kube.errors import ApiError
from tests.support.manifests.objects import find, rendered

NAMESPACE = "mlhub"


@dataclass
class Deployment:
    """A cluster, and the Job's pod in it."""

    cluster: FakeCluster
    account: Path
    port: int

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and all that it said."""
        command = [sys.executable, "-m", "mlhub_standalone.cluster_secrets", "--account", str(self.account)]
        process = await asyncio.create_subprocess_exec(
            *command,
            *arguments,
            env={
                "PATH": os.environ["PATH"],
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT": str(self.port),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, said.decode()

    def secrets(self) -> dict[str, dict[str, str]]:
        """Every Secret that is there, in the clear."""
        return {
            obj["metadata"]["name"]: {key: b64decode(value).decode() for key, value in obj["data"].items()}
            for obj in self.cluster.objects("secrets", NAMESPACE)
        }

    def versions(self) -> dict[str, str]:
        found = self.cluster.objects("secrets", NAMESPACE)
        return {obj["metadata"]["name"]: obj["metadata"]["resourceVersion"] for obj in found}

    def replace(self, name: str, data: dict[str, str]) -> None:
        """As a person would, who has all rights."""
        self.cluster.delete("secrets", name, NAMESPACE)
        encoded = {key: b64encode(value.encode()).decode() for key, value in data.items()}
        self.cluster.create("secrets", {"metadata": {"name": name}, "data": encoded}, NAMESPACE)


@asynccontextmanager
async def passing_on(context: ssl.SSLContext, url: str) -> AsyncIterator[int]:
    """By TLS, as every API server speaks it; the port."""
    host, port = urlsplit(url).hostname, urlsplit(url).port

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(host, port)
            far_writer.write(await reader.readuntil(b"\r\n\r\n"))
            back, forth = (asyncio.ensure_future(copy(*way)) for way in ((far_reader, writer), (reader, far_writer)))
            await asyncio.wait({back, forth}, return_when=asyncio.FIRST_COMPLETED)
            await end_tasks(back, forth)
            far_writer.close()
        writer.close()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async with await asyncio.start_server(carry, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    authority = Authority()
    authority.write(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.crt", tmp_path / "cert.key")
    account = tmp_path / "serviceaccount"
    account.mkdir()
    async with FakeCluster.open(NAMESPACE, processes=False) as cluster:
        rules = find(rendered("single"), "Role", "secrets", NAMESPACE)["rules"]
        (account / "token").write_text(cluster.token(rules, name="secrets"))
        (account / "namespace").write_text(NAMESPACE)
        (account / "ca.crt").write_text(authority.certificate)
        async with passing_on(context, cluster.url) as port:
            yield Deployment(cluster, account, port)


async def test_each_service_finds_what_it_needs_and_no_more(deployment: Deployment) -> None:
    code, said = await deployment.run()
    assert (code, said.splitlines()) == (0, [f"Secret {name}: made" for name in SECRETS])
    found = deployment.secrets()
    for variable, readers in credentials.READERS.items():
        assert {name for name, data in found.items() if variable in data} == set(readers) - {credentials.LAUNCHER}
        assert len({data[variable] for data in found.values() if variable in data}) == 1
    assert {name for name, data in found.items() if COOKIES in data} == {"hub"}
    assert {name for name, data in found.items() if ROUTES in data} == {"nats"}
    # The two halves of the key that opens the workers' attach endpoint lie apart.
    public = found["ssh-gateway"]["attach_ed25519_key.pub"].strip()
    assert found["spawner-worker"]["MLHUB_SPAWNER_WORKER_GATEWAY_PUBLIC_KEY"] == public
    assert found["hub"]["MLHUB_HUB_SSH_HOST_KEY"] == found["ssh-gateway"]["ssh_host_ed25519_key.pub"].strip()
    private = {name for name, data in found.items() for text in data.values() if "PRIVATE KEY" in text}
    assert private == {"ssh-gateway"}
    assert found["nats"]["MLHUB_NATS_PASSWORD"] in found["nats"]["auth.conf"]
    # 32 bytes, as JupyterHub takes them.
    assert len(bytes.fromhex(found["hub"][COOKIES])) == 32


async def test_it_shows_no_secret(deployment: Deployment) -> None:
    _, first = await deployment.run()
    deployment.cluster.delete("secrets", "hub", NAMESPACE)
    deployment.cluster.faults.revoke("create", "secrets")
    code, second = await deployment.run("--patience", "1")
    assert code == 1
    values = {text for data in deployment.secrets().values() for text in data.values()}
    assert [value for value in values if value.strip() in first + second] == []


async def test_another_run_writes_nothing(deployment: Deployment) -> None:
    await deployment.run()
    before = deployment.versions()
    deployment.cluster.forget_requests()
    code, said = await deployment.run()
    assert (code, said.splitlines()) == (0, [f"Secret {name}: all is there" for name in SECRETS])
    assert deployment.versions() == before
    assert not deployment.cluster.writes


async def test_what_is_lost_comes_back_from_the_others(deployment: Deployment) -> None:
    await deployment.run()
    before = deployment.secrets()
    for name in ("hub", "nats"):
        deployment.cluster.delete("secrets", name, NAMESPACE)
        assert (await deployment.run())[0] == 0
        after = deployment.secrets()
        # What nobody else has is new.
        kept = {key: text for key, text in before[name].items() if key not in {COOKIES, ROUTES, "cluster.conf"}}
        assert kept.items() <= after[name].items()
        assert after[name].keys() == before[name].keys()
        before = after


async def test_a_key_that_an_older_release_did_not_make_is_added_and_no_other_touched(deployment: Deployment) -> None:
    await deployment.run()
    before = deployment.secrets()
    older = {key: text for key, text in before["hub"].items() if key != COOKIES}
    deployment.replace("hub", older | {"of-my-own": "mine", "MLHUB_INTERNAL_TOKEN": "changed by a person"})
    code, said = await deployment.run()
    assert (code, f"Secret hub: added {COOKIES}" in said.splitlines()) == (0, True)
    after = deployment.secrets()
    assert after["hub"].items() >= {"of-my-own": "mine", "MLHUB_INTERNAL_TOKEN": "changed by a person"}.items()
    assert after["hub"].keys() == before["hub"].keys() | {"of-my-own"}
    assert {name: data for name, data in after.items() if name != "hub"} == {
        name: data for name, data in before.items() if name != "hub"
    }


async def test_several_at_once_agree(deployment: Deployment) -> None:
    runs = await asyncio.gather(*(deployment.run() for _ in range(4)))
    assert [code for code, _ in runs] == [0] * 4
    found = deployment.secrets()
    for variable in credentials.READERS:
        assert len({data[variable] for data in found.values() if variable in data}) == 1
    public = found["ssh-gateway"]["attach_ed25519_key.pub"].strip()
    assert found["spawner-worker"]["MLHUB_SPAWNER_WORKER_GATEWAY_PUBLIC_KEY"] == public
    assert found["hub"]["MLHUB_HUB_SSH_HOST_KEY"] == found["ssh-gateway"]["ssh_host_ed25519_key.pub"].strip()


async def test_an_api_that_is_away_or_refuses_for_a_moment_is_waited_for(deployment: Deployment) -> None:
    deployment.cluster.faults.answer(ApiError(403, "Forbidden", "not yet"), times=1)
    deployment.cluster.faults.answer(ApiError(503, "ServiceUnavailable", "starting"), times=1)
    code, said = await deployment.run()
    assert code == 0, said
    assert "Secret nats can't be read: not yet; trying again in 0.5 s" in said
    assert set(deployment.secrets()) == set(SECRETS)
    await deployment.cluster.stop_listening()
    running = asyncio.ensure_future(deployment.run())
    await asyncio.sleep(2)
    await deployment.cluster.listen_again()
    code, said = await running
    assert code == 0, said


@pytest.mark.parametrize("verb", ["get", "create", "patch"])
async def test_a_right_that_is_missing_is_named(deployment: Deployment, verb: str) -> None:
    if verb == "patch":
        await deployment.run()
        deployment.replace("hub", {"MLHUB_NATS_PASSWORD": deployment.secrets()["hub"]["MLHUB_NATS_PASSWORD"]})
    deployment.cluster.faults.revoke(verb, "secrets")
    code, said = await deployment.run("--patience", "1")
    assert code == 1
    assert said.splitlines()[-1].startswith("mlhub: Secret ")
    assert f'User "system:serviceaccount:mlhub:secrets" cannot {verb} resource "secrets"' in said
    assert "Traceback" not in said


async def test_it_talks_to_nobody_but_the_clusters_own_api(deployment: Deployment) -> None:
    (deployment.account / "ca.crt").write_text(Authority().certificate)
    code, said = await deployment.run("--patience", "1")
    assert code == 1
    assert "certificate verify failed" in said
    assert "Traceback" not in said
    assert deployment.cluster.requests == []


async def test_what_can_not_be_used_is_said(deployment: Deployment) -> None:
    await deployment.run()
    found = deployment.secrets()["ssh-gateway"]
    deployment.replace("ssh-gateway", found | {"attach_ed25519_key": "no key at all"})
    code, said = await deployment.run()
    assert code == 1
    assert "mlhub: a Secret holds what can't be used: " in said
    assert "Traceback" not in said


async def test_outside_of_a_cluster_it_says_so(deployment: Deployment, tmp_path: Path) -> None:
    elsewhere = Deployment(deployment.cluster, tmp_path / "nowhere", deployment.port)
    code, said = await elsewhere.run()
    assert code == 1
    assert said.startswith("mlhub: this is no pod with a service account: ")
