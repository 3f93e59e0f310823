"""One SSH port into every workspace."""
