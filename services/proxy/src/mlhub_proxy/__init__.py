"""Drives HAProxy: routes, certificates and activity of the one public port."""
