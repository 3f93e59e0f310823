"""The locks: one version of everything, hashed, in step with the pyprojects, and without any address."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.architecture.repository import PACKAGES, ROOT, SERVICES, Package

RESOLUTION = ROOT / "requirements-dev.txt"
LOCKS = [
    RESOLUTION,
    ROOT / "requirements-bootstrap.txt",
    *(s.folder / "requirements.txt" for s in SERVICES),
    *sorted((ROOT / "compose").glob("*/requirements.txt")),
]


def pins(lock: Path) -> list[str]:
    """What a lock installs, as name==version; a name can come twice, for two versions of Python."""
    return re.findall(r"^([a-z0-9-]+==[^ ;]+)", lock.read_text(), re.MULTILINE)


def names(lock: Path) -> set[str]:
    """What a lock installs, without the versions."""
    return {pin.partition("==")[0] for pin in pins(lock)}


def wanted(package: Package) -> set[str]:
    """Names of the foreign distributions that a package asks for."""
    lines = package.pyproject["project"]["dependencies"]
    return {re.split(r"[<>=~!;\[ ]", line)[0] for line in lines if not line.startswith("mlhub-")}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_a_lock_holds_pins_with_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    requirements = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert "://" not in text
    assert len(requirements) == len(pins(lock)) > 0
    assert all(line.endswith("\\") for line in requirements), "a requirement without a hash"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_all_locks_are_part_of_one_resolution(lock: Path) -> None:
    assert set(pins(lock)) <= set(pins(RESOLUTION))


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.short_name)
def test_a_lock_holds_all_that_its_service_asks_for(service: Package) -> None:
    shared = wanted(PACKAGES[0])
    assert wanted(service) | shared <= names(service.folder / "requirements.txt")


def test_the_launcher_lock_holds_every_service() -> None:
    everything = set().union(*(wanted(package) for package in PACKAGES))
    assert everything <= names(ROOT / "services/standalone/requirements.txt")
