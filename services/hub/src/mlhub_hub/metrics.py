"""The hub's own figures, beside JupyterHub's on /hub/metrics."""

from prometheus_client import Counter, Histogram

SPAWNS = Counter("mlhub_spawns", "Spawns that ended, by how", ["result"])

COMMAND_SECONDS = Histogram(
    "mlhub_command_seconds",
    "From the start of a spawn to the acknowledgement of its command by the bus",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 15),
)
