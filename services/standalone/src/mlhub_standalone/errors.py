"""What stops a command, as a sentence for people and an exit code."""


class LauncherError(Exception):
    """Something the person at the keyboard has to know or do; its text is shown as it is."""

    exit_code = 1


class WrongSettings(LauncherError):
    """A part refuses to start with the settings it was given."""

    exit_code = 2


class AlreadyRunning(LauncherError):
    """Another launcher holds this data directory."""

    def __init__(self, pid: int | None, folder: str) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"ML Hub is already running on {folder} ({who}).\n"
            f"  see it: mlhub status --data-dir {folder}    end it: mlhub down --data-dir {folder}\n"
            f"  a second one beside it: mlhub up --port ... --ssh-port ... --data-dir ANOTHER"
        )
        self.pid = pid
