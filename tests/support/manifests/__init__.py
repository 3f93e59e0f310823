"""Kubernetes manifests as a cluster would take them: rendered, validated, and checked for what schemas don't see."""
