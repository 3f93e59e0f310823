"""Workspaces as pods of one namespace of a Kubernetes cluster."""
