"""The certificate of the public port: mounted, of an authority, or our own; and how HAProxy gets it."""
