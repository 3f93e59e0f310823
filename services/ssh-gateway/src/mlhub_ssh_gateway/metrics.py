"""What the gateway counts."""

from prometheus_client import Counter, Gauge, Histogram

SESSIONS = Gauge("mlhub_ssh_sessions", "Logged-in connections")
LOGINS = Counter("mlhub_ssh_logins", "Connections that asked to log in, by how it ended", ["result"])
LOCKED = Counter("mlhub_ssh_tokens_unseen", "Tokens refused unseen after too many wrong ones")
FORWARDS_REFUSED = Counter("mlhub_ssh_forwards_refused", "Forwarded connections refused for where they lead")
ENDED = Counter("mlhub_ssh_sessions_ended", "Sessions that the gateway ended, by reason", ["reason"])
REFUSED = Counter("mlhub_ssh_connections_refused", "Connections closed before any login, by reason", ["reason"])
BYTES = Counter("mlhub_ssh_bytes", "Bytes relayed, by direction", ["direction"])
ENTERING = Histogram(
    "mlhub_ssh_enter_seconds",
    "From a session's request to its program in a workspace that was ready",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)
UNSENT = Counter("mlhub_ssh_events_dropped", "Events lost because too many waited for the bus")
