"""Runs workspaces on one backend and owns their state."""
