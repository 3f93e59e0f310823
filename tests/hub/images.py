"""A hub whose workspaces are containers, as far as it can tell: profiles, images, totals, GPUs."""

from pathlib import Path

PROFILES = """
profiles:
  - name: small
    display_name: Small
    description: Python and JupyterLab, for a first look.
    image: registry.example/lab:1
    default_cpu: 1
    max_cpu: 2
    default_mem: 2G
    max_mem: 4G
  - name: large
    display_name: Large
    description: More of everything, and GPUs.
    image: registry.example/lab-gpu:1
    default_cpu: 4
    default_mem: 8G
    default_shm: 1G
    max_shm: 4G
    max_gpus: 2
images:
  - registry.example/team/*
"""


def images_environment(folder: Path, profiles: str = PROFILES, **more: str) -> dict[str, str]:
    """The settings of such a hub."""
    file = folder / "profiles.yaml"
    file.write_text(profiles)
    return {
        "MLHUB_HUB_BACKEND": "docker",
        "MLHUB_PROFILES_FILE": str(file),
        "MLHUB_MAX_CPU": "8",
        "MLHUB_MAX_MEM": "32G",
        "MLHUB_USER_MAX_CPU": "6",
        "MLHUB_KEEP_VOLUMES_DAYS": "7",
    } | more
