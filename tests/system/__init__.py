"""The whole stack, from `mlhub up` on."""
