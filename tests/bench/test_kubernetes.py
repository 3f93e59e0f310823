"""What a workspace costs the API of Kubernetes; how long things take is for the bench itself."""

from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measures import kubernetes_starts
from tests.bench.report import Report


async def test_a_life_takes_eight_writes_and_no_list(tmp_path: Path) -> None:
    bench = Bench(tmp_path, runs=1, quick=True, report=Report({}), artefacts=tmp_path, chp=None)
    await kubernetes_starts.measure(bench)
    found = {figure.name: figure for figure in bench.report.figures}
    assert 6 <= found["API writes per life"].median <= 8
    assert found["lists in steady state"].median == 0
    assert found["worker's memory, 20 records"].reached
