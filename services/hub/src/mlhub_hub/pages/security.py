"""What a browser may load and run on the hub's pages."""

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'self'",
        # No inline script anywhere: what somebody manages to write into a page does not run.
        "script-src 'self'",
        # The admin page of JupyterHub sets styles from its script.
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
"""For `tornado_settings["headers"]["Content-Security-Policy"]`: every page of the hub obeys it."""
