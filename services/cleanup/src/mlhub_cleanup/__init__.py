"""Expires workspaces and removes what deleted users leave behind."""
