"""Measures what the README promises, side by side with the systems it would replace."""
