"""What is left of an instance: of an earlier launcher that was killed, or of a part that was."""

from mlhub_standalone import processes, state_file
from mlhub_standalone.data_dir import MARK, DataDir
from mlhub_standalone.processes import Identity

WITHIN = 8.0
"""Seconds that a leftover gets to end by itself."""


def parts(data: DataDir) -> list[Identity]:
    """Processes of the launcher's parts, by what it recorded and by the mark they carry; HAProxy among them."""
    recorded = [part.process for part in state_file.read(data) if part.process is not None]
    marked = processes.marked(MARK, str(data.root))
    haproxy = processes.named(data.of("proxy") / "haproxy.pid", str(data.of("proxy")))
    return [process for process in dict.fromkeys([*recorded, *marked, *haproxy]) if process.is_alive]


def workspaces(data: DataDir) -> list[Identity]:
    """Processes of this instance's workspaces, kernels and terminals included: all carry the mark of its worker."""
    try:
        worker = (data.of("spawner-worker") / "instance").read_text().strip()
    except OSError:
        return []
    return processes.marked("MLHUB_INSTANCE", worker) if worker else []


def end(data: DataDir, *, keep_workspaces: bool) -> int:
    """End whatever is left; returns how many processes there were."""
    found = parts(data)
    if not keep_workspaces:
        found += workspaces(data)
    return processes.end(found, within=WITHIN)
