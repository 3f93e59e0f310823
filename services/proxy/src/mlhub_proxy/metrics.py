"""What the agent counts."""

from prometheus_client import Counter, Gauge, Histogram

ROUTES = Gauge("mlhub_proxy_routes", "Workspaces, services and extras in HAProxy's tables")
APPLY = Histogram(
    "mlhub_proxy_apply_seconds",
    "From a changed record until HAProxy follows it",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2, 10),
)
SWAPS = Counter("mlhub_proxy_swaps", "Times that all tables were brought to HAProxy as a whole")
STARTS = Counter("mlhub_proxy_haproxy_starts", "Times that HAProxy was started, or found running", ["how"])
IGNORED = Counter("mlhub_proxy_ignored", "Records and routes that can't be served", ["kind"])
OPEN = Gauge("mlhub_proxy_open_connections", "Open connections to workspaces")
TOOLS = Counter("mlhub_proxy_tool_checks", "Requests to tools that HAProxy asked about", ["status"])
CERTIFICATE_EXPIRES = Gauge("mlhub_proxy_certificate_expires_timestamp_seconds", "When the certificate in use expires")
ORDERS = Counter("mlhub_proxy_certificate_orders", "Certificates asked of an authority", ["outcome"])
