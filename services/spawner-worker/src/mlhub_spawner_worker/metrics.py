"""What Prometheus sees of a worker."""

from prometheus_client import Counter, Gauge, Histogram

COMMANDS = Counter("mlhub_worker_commands", "Commands handled", ["kind", "outcome"])
SPAWNS = Counter("mlhub_worker_spawns", "Starts that came to a result", ["result"])
PHASES = Histogram(
    "mlhub_worker_phase_seconds",
    "Time a workspace spent in a phase",
    ["phase"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
RUNNING = Gauge("mlhub_worker_running", "Workspaces that take room on this node")
QUEUED = Gauge("mlhub_worker_queued", "Workspaces in line in this pool")
RECONCILED = Counter("mlhub_worker_reconciled", "What reconciliation did", ["action"])
