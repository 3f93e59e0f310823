"""A program that tries to get in with a wrong key, on many connections at once, or just connects and is sent away.

Prints, as JSON, how often what came of it.
"""

import argparse
import asyncio
import json
import time
from collections import Counter

import asyncssh

_PATIENCE = 5
_PAUSE = 0.01
"""Seconds that a client takes to try again when it was sent away at once."""


async def guess(port: int, address: str, key: asyncssh.SSHKey) -> str:
    """Log in with a key that nobody has registered."""
    try:
        async with asyncssh.connect(
            "127.0.0.1",
            port,
            local_addr=(address, 0),
            username="admin",
            client_keys=[key],
            known_hosts=None,
            config=None,
            agent_path=None,
            preferred_auth="publickey",
            kex_algs=["curve25519-sha256"],
        ):
            return "in"
    except asyncssh.PermissionDenied:
        return "refused"
    except (OSError, asyncssh.Error):
        await asyncio.sleep(_PAUSE)
        return "sent away"


async def knock(port: int, address: str, key: asyncssh.SSHKey) -> str:
    """Connect, and see whether anybody speaks."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    except OSError:
        return "no connection"
    try:
        async with asyncio.timeout(_PATIENCE):
            said = await reader.read(1)
    except TimeoutError:
        return "silence"
    except OSError:
        said = b""
    finally:
        writer.close()
    return "greeted" if said else "sent away"


async def flood(port: int, *, connections: int, seconds: float, knocks: bool, spread: bool) -> dict[str, float]:
    """Try for so long; with `spread` from as many addresses."""
    counts: Counter[str] = Counter()
    key = asyncssh.generate_private_key("ssh-ed25519")
    attempt = knock if knocks else guess
    started = time.monotonic()

    async def insist(number: int) -> None:
        address = f"127.0.1.{number + 1}" if spread else "127.0.0.1"
        while time.monotonic() - started < seconds:
            counts[await attempt(port, address, key)] += 1

    tasks = [asyncio.create_task(insist(number)) for number in range(connections)]
    await asyncio.wait(tasks, timeout=seconds)
    lasted = time.monotonic() - started
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {**counts, "seconds": lasted}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--knocks", action="store_true")
    parser.add_argument("--spread", action="store_true")
    given = vars(parser.parse_args())
    print(json.dumps(asyncio.run(flood(**given))))


if __name__ == "__main__":
    main()
