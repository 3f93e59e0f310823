"""What this service counts."""

from prometheus_client import Counter, Gauge, Histogram

LATENESS = Histogram(
    "mlhub_cleanup_timer_lateness_seconds",
    "From the time a timer was armed for until it was handled",
    ["purpose"],
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 1, 2, 5, 15, 60, 600),
)
ASKED = Counter("mlhub_cleanup_commands", "Commands sent, by what made them necessary", ["cause"])
SWEEPS = Counter("mlhub_cleanup_sweeps", "Sweeps for what the events missed", ["result"])
HUB_ANSWERS = Gauge("mlhub_cleanup_hub_answers", "1 if the hub's REST API answered when last asked")
UNCLAIMED = Gauge("mlhub_cleanup_unclaimed_resources", "What the workers hold for workspaces that have no record")
