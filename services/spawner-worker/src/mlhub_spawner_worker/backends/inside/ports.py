"""The ports of a workspace, seen from inside it: its engine does not know who listens in there."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from mlhub_shared.contracts.workspace import Endpoint
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends import listening as tables
from mlhub_spawner_worker.backends.base import BackendError, Listening
from mlhub_spawner_worker.backends.inside.link import ExecLink
from mlhub_spawner_worker.backends.inside.place import Place
from mlhub_spawner_worker.entry import EntryError

_SECONDS = 4
"""For the workspace to say it; a working one needs a tenth of one."""
_MOST_BYTES = 1024 * 1024
_MOST_PORTS = 500

_LOOK = r"""
printf '\036%s\n' "$$"
echo "range $(cat /proc/sys/net/ipv4/ip_local_port_range)"
command -v python3 >/dev/null && echo "has python3"
grep -h ' 0A ' /proc/net/tcp /proc/net/tcp6
ls -l /proc/[0-9]*/fd | grep -e '^/proc/' -e 'socket:'
head -c 400 /proc/[0-9]*/cmdline
"""
"""No more than every image has, and no loop: a process for each line would take seconds."""

_FOLDER = re.compile(r"/proc/(\d{1,20})/fd:")
_SOCKET = re.compile(r"socket:\[(\d{1,20})\]")
_COMMAND = re.compile(r"==> /proc/(\d{1,20})/cmdline <==\n(.*?)(?=\n==> /proc/|\Z)", re.DOTALL)

_NO_PYTHON = (
    "the program listens on its workspace's own loopback alone, and reaching it there needs python3 in the "
    "workspace's image, which has none; let it listen on 0.0.0.0"
)


@dataclass(frozen=True)
class Surroundings:
    """What is known of a workspace from outside."""

    port: int
    """The workspace's own."""
    address: str | None
    """Where the proxy reaches every port. None: nowhere."""
    needs_python: bool = True
    """To reach what listens on the loopback alone; if not, its engine can."""


async def listening(place: Place, around: Surroundings) -> list[Listening]:
    """What programs listen on, on the loopback or on the network; BackendError if the image can't show it."""
    return _understood(await _said(place), around)


async def _said(place: Place) -> str:
    try:
        async with asyncio.timeout(_SECONDS):
            return await _answer(place)
    except EntryError as error:
        raise BackendError(f"nobody can see on which ports this workspace listens: {error}") from error
    except TimeoutError:
        raise Temporary("the workspace does not say in time on which ports it listens") from None


async def _answer(place: Place) -> str:
    listener = _Listener()
    listener.link = link = await ExecLink.open(place, ["/bin/sh", "-c", f"exec 2>/dev/null\n{_LOOK}"], listener)
    try:
        link.resume_reading()
        await link.ended()
    finally:
        link.let_go()
    return listener.said.decode(errors="replace")


def _understood(said: str, around: Surroundings) -> list[Listening]:
    first_free = int(next(iter(re.findall(r"^range (\d{1,5})\b", said, re.MULTILINE)), "32768"))
    has_python = "\nhas python3\n" in said
    programs = _programs(said)
    by_port: dict[int, list[tables.Socket]] = {}
    for one in tables.sockets(said):
        if _is_reachable(one, around):
            by_port.setdefault(one.port, []).append(one)
    found = []
    for port in sorted(set(by_port) - {around.port})[:_MOST_PORTS]:
        here = by_port[port]
        program = next(filter(None, (programs.get(one.inode) for one in here)), "")
        if around.address is not None and any(one.takes(ip_address(around.address)) for one in here):
            found.append(Listening(port, program, Endpoint(host=around.address, port=port)))
            continue
        is_internal = port >= first_free and all(one.address.is_loopback for one in here)
        obstacle = "" if has_python or not around.needs_python else _NO_PYTHON
        found.append(Listening(port, program, obstacle=obstacle, is_internal=is_internal))
    return found


def _is_reachable(one: tables.Socket, around: Surroundings) -> bool:
    # The engine's own name service listens on another address of the loopback.
    address = around.address
    return any(one.takes(own) for own in tables.LOOPBACK) or (address is not None and one.takes(ip_address(address)))


def _programs(said: str) -> Mapping[int, str]:
    """What the sockets' programs are called, as far as this user may see them."""
    commands = {int(pid): tables.program(text.split("\0")) for pid, text in _COMMAND.findall(said)}
    found: dict[int, str] = {}
    pid = 0
    for line in said.splitlines():
        if folder := _FOLDER.fullmatch(line):
            pid = int(folder[1])
        elif socket := _SOCKET.search(line):
            found.setdefault(int(socket[1]), commands.get(pid, ""))
    return found


class _Listener:
    """The client of an exec that is asked for one short answer."""

    def __init__(self) -> None:
        self.said = bytearray()
        self.link: ExecLink

    def write(self, data: bytes, *, is_error: bool = False) -> None:
        self.said += data
        if len(self.said) > _MOST_BYTES:
            self.link.let_go()

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass
