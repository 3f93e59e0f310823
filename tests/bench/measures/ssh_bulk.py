"""How fast bytes go through, both ways, compared with OpenSSH's own jump host."""

from collections.abc import Awaitable, Callable
from functools import partial

from tests.bench.bench import Bench
from tests.bench.report import at_least
from tests.bench.sampling import rotate
from tests.bench.ssh.hosts import JUMP, OURS, jump_way, our_way

NAME = "ssh-bulk"
_MEGABYTES = 200
_LEAST_RUNS = 7
_SUFFIX = "-gcm"
_CIPHER = {"Ciphers": "aes128-gcm@openssh.com"}
_WAYS = {"ours": OURS + _SUFFIX, "ssh -J": JUMP + _SUFFIX}
_GOALS = {"down": at_least(0.9), "up": at_least(1.5)}


async def measure(bench: Bench) -> None:
    """One stream at a time, without the login, the same cipher on every part of every way."""
    size = bench.amount(_MEGABYTES, 20) * 1_000_000
    runs = bench.amount(max(bench.runs, _LEAST_RUNS), 1)
    async with our_way(bench) as ours, jump_way(bench, ours.client) as jump:
        for way, name in ((ours, _WAYS["ours"]), (jump, _WAYS["ssh -J"])):
            way.add(name, _CIPHER)
        source = bench.folder / "source"
        with source.open("wb") as file:
            file.truncate(size)
        turns: dict[str, Callable[[str], Awaitable[float]]] = {
            "down": partial(ours.client.seconds_of_transfer, line=f"head -c {size} /dev/zero"),
            "up": partial(ours.client.seconds_of_transfer, line="cat > /dev/null", source=source),
        }
        for direction, turn in turns.items():
            took = await rotate(runs, _WAYS, turn)
            rates = {name: [size / one / 1e6 for one in seconds] for name, seconds in took.items()}
            for name, values in rates.items():
                bench.report.add(NAME, f"{direction}, {name}", "MB/s", values)
            goal = _GOALS[direction]
            bench.report.versus(NAME, f"{direction}, ours / ssh -J", rates["ours"], rates["ssh -J"], goal)
