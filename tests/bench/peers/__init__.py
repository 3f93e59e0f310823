"""What ours is compared with, as their makers ship it."""
