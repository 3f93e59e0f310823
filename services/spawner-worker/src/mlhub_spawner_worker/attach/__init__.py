"""The attach endpoint: an SSH server, open to the gateway alone, that enters workspaces by their names."""

from mlhub_spawner_worker.attach.server import AttachServer

__all__ = ["AttachServer"]
