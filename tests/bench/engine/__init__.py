"""The container engine: what a measure makes there, and the contenders that start containers on it."""
