"""The engine's refusals as errors of the worker: what passes is tried again, the rest is told."""

import aiohttp
import pytest
from aiodocker.exceptions import DockerError

from mlhub_shared.errors import Permanent, Temporary
from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.docker.errors import EngineAway, Missing, Taken, translated


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (DockerError(900, "Cannot connect to Docker Engine"), EngineAway),
        (DockerError(503, "no"), EngineAway),
        (DockerError(404, "No such container: x"), Missing),
        (DockerError(409, 'Conflict. The container name "/x" is already in use by container "1"'), Taken),
        (DockerError(409, "removal of container 1 is already in progress"), Temporary),
        (DockerError(500, "driver failed: Bind for 0.0.0.0:1 failed: port is already allocated"), Temporary),
        (DockerError(500, "proxy: listen tcp4 0.0.0.0:80: bind: address already in use"), Temporary),
        (DockerError(403, "Address already in use"), BackendError),
        (DockerError(500, "failed to create shim task: context canceled: unknown"), Temporary),
        (DockerError(400, "Minimum memory limit allowed is 6MB"), BackendError),
        (aiohttp.ClientPayloadError("half an answer"), EngineAway),
        (TimeoutError(), EngineAway),
        (ConnectionResetError(), EngineAway),
    ],
)
def test_each_answer_has_its_error(raised: Exception, kind: type[Exception]) -> None:
    with pytest.raises((Permanent, Temporary)) as caught, translated("do it"):
        raise raised
    assert isinstance(caught.value, kind)


def test_a_full_disk_is_named() -> None:
    with pytest.raises(BackendError, match="disk of this node is full"), translated("make the container x"):
        raise DockerError(500, "mkdir /var/lib/docker/overlay2/1: no space left on device")


def test_what_the_engine_says_is_cut() -> None:
    with pytest.raises(BackendError) as caught, translated("do it"):
        raise DockerError(500, "x" * 100_000)
    assert len(str(caught.value)) < 1000
