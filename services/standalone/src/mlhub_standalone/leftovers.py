"""What is left of an instance: of an earlier launcher that was killed, or of a part that was."""

from dataclasses import dataclass

from mlhub_standalone import processes, state_file
from mlhub_standalone.console import plural
from mlhub_standalone.data_dir import MARK, DataDir, read_json
from mlhub_standalone.engine import Container, EngineAway, kept_engine
from mlhub_standalone.ports import await_free
from mlhub_standalone.processes import Identity

WITHIN = 8.0
"""Seconds that a leftover gets to end by itself."""

_ROUNDS = 3
_PORTS_WITHIN = 5.0


def parts(data: DataDir) -> list[Identity]:
    """Processes of the launcher's parts, by what it recorded and by the mark they carry; HAProxy among them."""
    recorded = [part.process for part in state_file.read(data) if part.process is not None]
    marked = processes.marked(MARK, str(data.root))
    haproxy = processes.named(data.of("proxy") / "haproxy.pid")
    return [process for process in dict.fromkeys([*recorded, *marked, *haproxy]) if process.is_alive]


def workspaces(data: DataDir) -> list[Identity]:
    """Processes of this instance's workspaces, kernels and terminals included: all carry the mark of its worker."""
    try:
        worker = (data.of("spawner-worker") / "instance").read_text().strip()
    except OSError:
        return []
    return processes.marked("MLHUB_INSTANCE", worker) if worker else []


def containers(data: DataDir) -> list[Container]:
    """Containers of this instance's workspaces; none where the engine is away, or never was asked for any."""
    if (kept := kept_engine(data)) is None:
        return []
    engine, hub_name = kept
    try:
        return engine.workspaces(hub_name)
    except EngineAway:
        return []


@dataclass(frozen=True)
class Ended:
    """How many processes and containers were ended."""

    parts: int
    workspaces: int
    containers: int = 0

    def __str__(self) -> str:
        counted = (
            f"{plural(self.parts, 'process')} of parts" if self.parts else "",
            f"{plural(self.workspaces, 'process')} of workspaces" if self.workspaces else "",
            f"{plural(self.containers, 'container')} of workspaces" if self.containers else "",
        )
        return " and ".join(filter(None, counted))


def end(data: DataDir, *, keep_workspaces: bool) -> Ended:
    """End whatever is left."""
    ended = set[Identity]()
    # Anew until there is none: a part that is asked to end may just have started HAProxy again.
    for _ in range(_ROUNDS):
        if not (found := parts(data)):
            break
        ended.update(found)
        processes.end(found, within=WITHIN)
    if keep_workspaces:
        return Ended(len(ended), 0)
    return Ended(len(ended), processes.end(workspaces(data), within=WITHIN), _remove_containers(data))


def take_over(data: DataDir) -> int:
    """End the parts of a launcher that was killed, and wait for their ports; returns how many there were.

    Workspaces run on, and know the ports: those must be free before anybody asks whether they have to be replaced.
    """
    ended = end(data, keep_workspaces=True).parts
    kept = read_json(data.instance)
    await_free(kept.get("internal", {}).values(), within=_PORTS_WITHIN)
    if ended:
        await_free((kept[name] for name in ("port", "ssh_port") if name in kept), within=_PORTS_WITHIN)
    return ended


def _remove_containers(data: DataDir) -> int:
    """A stopped workspace has no container: its files are in its volume."""
    kept, found = kept_engine(data), containers(data)
    return kept[0].remove(found) if kept and found else 0
