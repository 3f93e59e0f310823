"""`python -m tests.bench`: measure, print the table, write artefacts/bench.json."""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from tests.bench.bench import Bench, NotAvailableError
from tests.bench.machine import describe, load_average
from tests.bench.measures import (
    docker_death,
    docker_memory,
    docker_networks,
    docker_starts,
    event_path,
    https,
    hub_restart,
    kubernetes_starts,
    proxying,
    records,
    spawns,
    ssh_bulk,
    ssh_connect,
    ssh_flood,
    ssh_sessions,
    timers,
    tools,
)
from tests.bench.peers import chp
from tests.bench.report import Report

ARTEFACTS = Path(__file__).parents[2] / "artefacts"
MEASURES: Mapping[str, Callable[[Bench], Awaitable[None]]] = {
    "event-path": event_path.measure,
    "spawns": spawns.measure,
    "proxy": proxying.measure,
    "records": records.measure,
    "timers": timers.measure,
    "hub-restart": hub_restart.measure,
    ssh_connect.NAME: ssh_connect.measure,
    ssh_bulk.NAME: ssh_bulk.measure,
    ssh_sessions.NAME: ssh_sessions.measure,
    ssh_flood.NAME: ssh_flood.measure,
    https.NAME: https.measure,
    tools.NAME: tools.measure,
    docker_starts.NAME: docker_starts.measure,
    docker_networks.NAME: docker_networks.measure,
    docker_memory.NAME: docker_memory.measure,
    docker_death.NAME: docker_death.measure,
    kubernetes_starts.NAME: kubernetes_starts.measure,
}
_LONGEST = 1800
"""Seconds that one measure may take."""


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(MEASURES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(MEASURES)}")
    return names


def arguments() -> argparse.Namespace:
    """What the person asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure ML Hub beside its peers.")
    parser.add_argument("--only", type=_names, default=list(MEASURES), metavar=",".join(MEASURES))
    parser.add_argument("--runs", type=int, default=5, help="how often each contender takes its turn (default 5)")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that everything works")
    parser.add_argument("--json", type=Path, default=ARTEFACTS / "bench.json", help="where the JSON goes")
    return parser.parse_args()


async def run(only: list[str], *, runs: int, quick: bool, folder: Path) -> tuple[Report, bool]:
    """Take the measures one after the other; True if each came to its end."""
    command, reason = await _chp(ARTEFACTS / "npm")
    report = Report(await describe(command, folder))
    if command is None:
        report.skipped["configurable-http-proxy"] = f"{reason}; the stock hub runs with a proxy that costs nothing"
    complete = True
    for name in only:
        started = time.monotonic()
        report.machine[f"load at {name}"] = load_average()
        print(f"{name} ...", file=sys.stderr, flush=True)
        bench = Bench(folder / name, runs=runs, quick=quick, report=report, artefacts=ARTEFACTS, chp=command)
        try:
            async with asyncio.timeout(_LONGEST):
                await MEASURES[name](bench)
        except NotAvailableError as error:
            report.skipped[name] = str(error)
            shutil.rmtree(bench.folder, ignore_errors=True)
        except Exception as error:  # noqa: BLE001  (the other measures are worth having)
            traceback.print_exception(error)
            report.skipped[name] = f"failed: {type(error).__name__}; logs in {bench.folder}"
            complete = False
        else:
            shutil.rmtree(bench.folder, ignore_errors=True)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    report.machine["load after"] = load_average()
    return report, complete


async def _chp(folder: Path) -> tuple[Path | None, str]:
    try:
        return await chp.install(folder), ""
    except NotAvailableError as error:
        return None, str(error)


def main() -> int:
    """Exit status 1 if a measure could not be taken; a goal that was missed only shows in the table."""
    given = arguments()
    folder = Path(tempfile.mkdtemp(prefix="mlhub-bench-"))
    report, complete = asyncio.run(run(given.only, runs=given.runs, quick=given.quick, folder=folder))
    report.write(given.json)
    print(report.table())
    if complete:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
