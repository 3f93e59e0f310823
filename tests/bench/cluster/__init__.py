"""A Kubernetes API, and what asks it to run workspaces."""
