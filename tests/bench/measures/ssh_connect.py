"""How long `ssh host true` takes, compared with OpenSSH's own jump host."""

from tests.bench.bench import Bench
from tests.bench.report import at_most
from tests.bench.sampling import rotate
from tests.bench.ssh.hosts import JUMP, OURS, jump_way, our_way

NAME = "ssh-connect"
_LOGINS = 21
_SAME_KEX = "jump-curve25519"
_WAYS = {"ours": OURS, "ssh -J": JUMP, "ssh -J with curve25519": _SAME_KEX}


async def measure(bench: Bench) -> None:
    """From the start of ssh to its end, each way in turn."""
    async with our_way(bench) as ours, jump_way(bench, ours.client) as jump:
        # The client's first choice is an exchange that takes more time than ours, and that other servers have too.
        jump.add(_SAME_KEX, {"KexAlgorithms": "curve25519-sha256"})
        took = await rotate(bench.amount(_LOGINS, 3), _WAYS, lambda host: ours.client.seconds(host, "true"))
    for name, seconds in took.items():
        bench.report.add(NAME, f"`ssh host true`, {name}", "ms", [one * 1000 for one in seconds])
    bench.report.versus(NAME, "ours / ssh -J", took["ours"], took["ssh -J"], at_most(0.4))
    bench.report.versus(NAME, "ours / ssh -J with curve25519", took["ours"], took["ssh -J with curve25519"])
