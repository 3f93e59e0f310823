"""Workspaces as containers of one Docker engine."""

from mlhub_spawner_worker.backends.docker.backend import DockerBackend
from mlhub_spawner_worker.backends.docker.configuration import DockerSettings, ReachSettings

__all__ = ["DockerBackend", "DockerSettings", "ReachSettings"]
