"""The proxy: real HAProxy, real nats-server, small servers behind."""
