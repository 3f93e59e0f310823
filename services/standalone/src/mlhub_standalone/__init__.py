"""ML Hub with one command: an embedded NATS server and every service as a child process."""
