"""Who may import what: the contracts of import-linter, and the allow-lists that it can't say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

from tests.architecture.repository import MODULES, ROOT

HOMES = {
    "nats": ["mlhub_shared.bus"],
    "asyncssh": ["mlhub_ssh_gateway", "mlhub_spawner_worker.attach"],
    "jupyterhub": ["mlhub_hub", "mlhub_cleanup", "mlhub_proxy"],
    "aiodocker": ["mlhub_spawner_worker.backends.docker"],
    "acme": ["mlhub_proxy.certificates.authority"],
    "kubernetes_asyncio": ["mlhub_spawner_worker.backends.kubernetes"],
}
"""The modules (with all below them) that alone may import a client library."""

WORKER = "mlhub_spawner_worker"
BACKENDS = [f"{WORKER}.backends.{name}" for name in ("process", "docker", "kubernetes")]
INSIDE = f"{WORKER}.backends.inside"
FACTORIES = [f"{WORKER}.factory", f"{WORKER}.backends.factory"]
CONTRACTS = "mlhub_shared.contracts"

Import = tuple[str, str]


def within(module: str, *homes: str) -> bool:
    """Whether a module is one of the homes or lies below one."""
    return any(module == home or module.startswith(home + ".") for home in homes)


def imports(graph: grimp.ImportGraph) -> Iterator[Import]:
    """Every direct import of the graph."""
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            yield importer, imported


def strangers_to_clients(graph: grimp.ImportGraph) -> list[Import]:
    """Imports of a client library from outside its home."""
    return [(a, b) for a, b in imports(graph) if b in HOMES and not within(a, *HOMES[b])]


def impure_contracts(graph: grimp.ImportGraph) -> list[Import]:
    """What the contracts import beyond themselves, pydantic and the standard library."""
    allowed = {"pydantic", *sys.stdlib_module_names}
    return [
        (a, b)
        for a, b in imports(graph)
        if within(a, CONTRACTS) and not within(b, CONTRACTS) and b.partition(".")[0] not in allowed
    ]


def strangers_to_backends(graph: grimp.ImportGraph) -> list[Import]:
    """Imports of a concrete backend by anything but itself and the factory."""
    return [
        (a, b)
        for a, b in imports(graph)
        for backend in BACKENDS
        if within(b, backend) and not within(a, backend, *FACTORIES)
    ]


def strangers_to_inside(graph: grimp.ImportGraph) -> list[Import]:
    """Imports of what backends share for entering workspaces by anything but a backend."""
    return [(a, b) for a, b in imports(graph) if within(b, INSIDE) and not within(a, INSIDE, *BACKENDS)]


RULES = [strangers_to_clients, impure_contracts, strangers_to_backends, strangers_to_inside]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """The imports of all packages as they are."""
    return grimp.build_graph(*MODULES, include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_import_breaks_a_rule(graph: grimp.ImportGraph, rule: type) -> None:
    assert rule(graph) == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("mlhub_hub.spawner", "nats"),
        ("mlhub_shared.business", "nats"),
        ("mlhub_spawner_worker.lifecycle", "asyncssh"),
        ("mlhub_ssh_gateway.resolver", "jupyterhub"),
        (f"{WORKER}.backends.process", "aiodocker"),
        (f"{CONTRACTS}.commands", "structlog"),
        (f"{CONTRACTS}.commands", "mlhub_shared.errors"),
        (f"{WORKER}.backends.docker.engine", f"{WORKER}.backends.process"),
        (f"{WORKER}.workspaces", f"{WORKER}.backends.kubernetes.pods"),
        (f"{WORKER}.backends.inside.link", f"{WORKER}.backends.docker.engine"),
        (f"{WORKER}.attach.session", f"{WORKER}.backends.inside.link"),
    ],
)
def test_a_forbidden_import_is_noticed(importer: str, imported: str) -> None:
    graph = grimp.ImportGraph()
    graph.add_import(importer=importer, imported=imported)
    assert [found for rule in RULES for found in rule(graph)] == [(importer, imported)]


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("mlhub_shared.bus", "nats"),
        ("mlhub_shared.bus.streams", "nats"),
        (f"{WORKER}.attach.server", "asyncssh"),
        (f"{WORKER}.factory", f"{WORKER}.backends.docker"),
        (f"{WORKER}.backends.docker.engine", f"{WORKER}.backends.docker.names"),
        (f"{WORKER}.backends.docker.exec", f"{WORKER}.backends.inside"),
        (f"{CONTRACTS}.commands", "pydantic"),
        (f"{CONTRACTS}.commands", "datetime"),
    ],
)
def test_an_allowed_import_is_let_through(importer: str, imported: str) -> None:
    graph = grimp.ImportGraph()
    graph.add_import(importer=importer, imported=imported)
    assert [found for rule in RULES for found in rule(graph)] == []


def test_import_linter_keeps_its_contracts() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
