"""Entry point of the command `mlhub`."""

import platform
import sys


def main() -> None:
    """Run one command; the exit code says how it went."""
    if platform.system() != "Linux":
        sys.exit(
            f"mlhub: workspaces as local processes need Linux, not {platform.system()}: "
            "use Docker (mlhub-standalone is all of it in one container), a virtual machine, or WSL 2 on Windows"
        )
    # Not before: some of it can't even be imported elsewhere.
    from mlhub_standalone.commands import run

    sys.exit(run())


if __name__ == "__main__":
    main()
