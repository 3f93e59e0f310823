"""One rule of names: folder x-y = distribution mlhub-x-y = package mlhub_x_y, everywhere."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib

import pytest

from tests.architecture.repository import MODULES, PACKAGES, ROOT, SERVICES, SHARED, Package

LONGEST_FILE = 400


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.short_name)
def test_folder_distribution_and_package_have_one_name(package: Package) -> None:
    project = package.pyproject["project"]
    assert project["name"] == f"mlhub-{package.short_name}"
    assert [path.name for path in package.source.parent.iterdir() if path.suffix != ".egg-info"] == [package.module]
    assert (package.source / "__init__.py").is_file()
    assert (package.source / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.short_name)
def test_no_distribution_can_be_uploaded_or_is_called_plain_mlhub(package: Package) -> None:
    project = package.pyproject["project"]
    assert project["name"] != "mlhub"
    assert "Private :: Do Not Upload" in project["classifiers"]


def test_all_packages_have_one_version_and_are_installed() -> None:
    declared = {package.pyproject["project"]["version"] for package in PACKAGES}
    installed = {importlib.metadata.version(f"mlhub-{package.short_name}") for package in PACKAGES}
    assert len(declared) == 1
    assert installed == declared


def test_every_tool_knows_every_package() -> None:
    makefile = (ROOT / "Makefile").read_text()
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    listed = re.search(r"^SERVICES := (.*)$", makefile, re.MULTILINE)
    assert listed is not None
    assert sorted(listed[1].split()) == [service.short_name for service in SERVICES]
    assert set(tools["importlinter"]["root_packages"]) == set(MODULES)
    assert set(tools["mypy"]["mypy_path"]) == {str(package.source.parent.relative_to(ROOT)) for package in PACKAGES}
    assert set(tools["ruff"]["lint"]["isort"]["known-first-party"]) == {*MODULES, "tests"}


def test_shared_names_no_service_package() -> None:
    services = "|".join(service.module for service in SERVICES)
    named = {
        str(path): found
        for path in SHARED.source.rglob("*.py")
        if (found := re.findall(rf"\b(?:{services})\b", path.read_text()))
    }
    assert named == {}


def test_nothing_is_called_utils() -> None:
    names = {"utils.py", "util.py", "utils", "helpers.py", "misc.py"}
    folders = [ROOT / "tests", *(package.source for package in PACKAGES)]
    assert [path for folder in folders for path in folder.rglob("*") if path.name in names] == []


def test_no_file_is_too_long_to_read() -> None:
    folders = [ROOT / "tests", *(package.source for package in PACKAGES)]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for folder in folders
        for path in folder.rglob("*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_every_folder_of_tests_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
