"""ML Hub's front: login, pages and REST API on JupyterHub, spawning through the bus."""
