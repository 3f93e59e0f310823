"""What an administrator says of a node."""

import pytest
from pydantic import ValidationError

from mlhub_spawner_worker.settings import SpawnerWorkerSettings


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("", {}),
        ("gpu=a100", {"gpu": "a100"}),
        (" zone=b, gpu=a100 ,", {"zone": "b", "gpu": "a100"}),
        ("example.org/rack=r-1", {"example.org/rack": "r-1"}),
    ],
)
def test_labels(monkeypatch: pytest.MonkeyPatch, text: str, labels: dict[str, str]) -> None:
    monkeypatch.setenv("MLHUB_SPAWNER_WORKER_LABELS", text)
    assert SpawnerWorkerSettings().node_labels() == labels


@pytest.mark.parametrize("text", ["gpu", "gpu=", "=a100", "gpu=a100,zone", "gpu=a=b"])
def test_what_is_no_label_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValidationError, match="labels"):
        SpawnerWorkerSettings(labels=text)


@pytest.mark.parametrize("name", ["open_to", "closed_to", "dns"])
def test_addresses_are_looked_at_when_the_worker_starts(name: str) -> None:
    given = "169.254.169.254, 10.8.0.0/16 ,fd00::/8"
    assert getattr(SpawnerWorkerSettings.model_validate({name: given}), name) == given
    for wrong in ("10.8.0.1/16", "dns.my.org", "169.254.169.254:53"):
        with pytest.raises(ValidationError, match=name):
            SpawnerWorkerSettings.model_validate({name: f"10.0.0.1,{wrong}"})


def test_what_may_be_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLHUB_SPAWNER_WORKER_CPU_CAPACITY", "12.5")
    monkeypatch.setenv("MLHUB_SPAWNER_WORKER_MEM_CAPACITY", "64G")
    settings = SpawnerWorkerSettings()
    assert (settings.cpu_capacity, settings.mem_capacity) == (12.5, 64 * 1024**3)
    for blank in ("CPU_CAPACITY", "MEM_CAPACITY"):
        monkeypatch.setenv(f"MLHUB_SPAWNER_WORKER_{blank}", "")
    settings = SpawnerWorkerSettings()
    assert (settings.cpu_capacity, settings.mem_capacity) == (None, None)
