"""Rules of the code base itself: imports, names, locks."""
