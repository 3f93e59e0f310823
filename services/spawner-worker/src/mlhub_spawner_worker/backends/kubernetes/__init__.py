"""Workspaces as pods of one namespace of a Kubernetes cluster."""

from mlhub_spawner_worker.backends.kubernetes.backend import KubernetesBackend
from mlhub_spawner_worker.backends.kubernetes.configuration import KubernetesSettings

__all__ = ["KubernetesBackend", "KubernetesSettings"]
