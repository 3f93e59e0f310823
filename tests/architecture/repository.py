"""What the repository is made of, read from its folders."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Package:
    """One of the distributions of this repository."""

    folder: Path

    @property
    def short_name(self) -> str:
        return self.folder.name

    @property
    def module(self) -> str:
        return "mlhub_" + self.short_name.replace("-", "_")

    @property
    def source(self) -> Path:
        return self.folder / "src" / self.module

    @property
    def pyproject(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text())


SERVICES = tuple(Package(path.parent) for path in sorted(ROOT.glob("services/*/pyproject.toml")))
SHARED = Package(ROOT / "shared")
PACKAGES = (SHARED, *SERVICES)
MODULES = tuple(package.module for package in PACKAGES)
