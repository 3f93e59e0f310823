"""Keeps the workspaces of one deployment away from the host they run on: rules for iptables, set and removed.

    python -m mlhub_spawner_worker.firewall apply|check|remove --hub NAME [...]

Runs as root in the network namespace of the Docker engine. Every user network of a deployment is a bridge whose name
begins with `bridge_prefix(hub)`: the rules hold for these bridges and no other, so deployments on one engine never
touch each other's, whatever addresses they use. This module needs nothing but the standard library and iptables.

What is forwarded is judged in the table `mangle`, not in the engine's chain DOCKER-USER: engines take the jump to that
chain away and put it back whenever they make a network, and who dials in that moment would stay connected.
"""

import argparse
import base64
import hashlib
import ipaddress
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

METADATA = ("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32")
"""Where clouds tell a machine its own secrets: all of link-local, Azure, Alibaba. Some of them answer DNS there too."""

RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""Containers ask the host's own name servers, which may be addresses of the host itself."""

LOCK_SECONDS = 10
"""How long iptables waits for whoever else is changing rules."""

_ANSWERS = "-m conntrack --ctstate ESTABLISHED,RELATED"
_BRIDGED = "-m physdev --physdev-is-bridged"
_REFUSE = "REJECT"
"""Says so, which spares people a time-out; there is no such thing in `mangle`."""


class FirewallError(Exception):
    """The rules can't be set; the text is for the administrator."""


@dataclass(frozen=True)
class Openings:
    """What workspaces may reach of what is closed, and who may reach them from outside; addresses as IP or CIDR."""

    api_port: int | None = None
    """On every address of the host: the hub's API for workspaces. None: nothing of the host."""
    entry_from: tuple[str, ...] = ()
    """May open connections to published ports of workspaces."""
    proxy: tuple[str, int] | None = None
    """Address and port of the hub's API on another host; nothing else of that host is open."""
    closed: tuple[str, ...] = ()
    """Reached by no workspace."""


def bridge_prefix(hub: str) -> str:
    """How the bridge of every user network of that deployment begins; seven characters of the kernel's fifteen."""
    return f"m{_digest(hub, 5)}-"


def bridge_name(hub: str, user: str) -> str:
    """The bridge of that user's network."""
    return bridge_prefix(hub) + _digest(f"{hub}/{user}", 8)


def _digest(text: str, length: int) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:length]


@dataclass(frozen=True)
class Chains:
    """The names of a deployment's own chains."""

    hub: str

    @property
    def to_host(self) -> str:
        """From workspaces to the host itself."""
        return f"MLHUB-{self.hub}-HOST"

    @property
    def leaving(self) -> str:
        """From workspaces to anywhere else."""
        return f"MLHUB-{self.hub}-OUT"

    @property
    def entering(self) -> str:
        """From anywhere else to workspaces."""
        return f"MLHUB-{self.hub}-IN"

    @property
    def by_table(self) -> dict[str, tuple[str, ...]]:
        """All of them, and the tables they are in."""
        return {"filter": (self.to_host,), "mangle": (self.leaving, self.entering)}

    @property
    def jumps(self) -> list["Jump"]:
        """What leads to them."""
        bridges = f"{bridge_prefix(self.hub)}+"
        return [
            Jump("filter", "INPUT", ("-i", bridges, "-j", self.to_host)),
            Jump("mangle", "FORWARD", ("-i", bridges, "-j", self.leaving)),
            Jump("mangle", "FORWARD", ("-o", bridges, "-j", self.entering)),
        ]


@dataclass(frozen=True)
class Jump:
    """A rule that leads from one of the kernel's chains to one of ours."""

    table: str
    chain: str
    rule: tuple[str, ...]


def rules(hub: str, openings: Openings, *, nameservers: Sequence[str] = (), sees_bridged: bool = True) -> list[str]:
    """The deployment's IPv4 rules, in order.

    Without `sees_bridged` (a kernel that can't tell packets within a bridge) the engine's own rules alone keep
    users' networks apart.
    """
    chains, bridges = Chains(hub), f"{bridge_prefix(hub)}+"
    within = f"{_BRIDGED} -j RETURN"
    # What can't be told apart is left to the engine: this is one user's network, or two users' that it isolates.
    leaving_within = [within, f"-o {bridges} -j DROP"] if sees_bridged else [f"-o {bridges} -j RETURN"]
    entering_within = within if sees_bridged else f"-i {bridges} -j RETURN"
    listed = {
        chains.to_host: [
            f"{_ANSWERS} -j RETURN",
            *([f"-p tcp --dport {openings.api_port} -j ACCEPT"] if openings.api_port else []),
            *(f"-d {server} -p {kind} --dport 53 -j ACCEPT" for server in nameservers for kind in ("udp", "tcp")),
            f"-j {_REFUSE}",
        ],
        chains.leaving: [
            f"{_ANSWERS} -j RETURN",
            *leaving_within,
            # A published port of this host: its address has been rewritten before it comes here.
            "-m conntrack --ctstate DNAT -j DROP",
            *(f"-p {kind} --dport 53 -j RETURN" for kind in ("udp", "tcp")),
            *_to_proxy(openings.proxy),
            *(f"-d {address} -j DROP" for address in (*METADATA, *openings.closed)),
            "-j RETURN",
        ],
        chains.entering: [
            f"{_ANSWERS} -j RETURN",
            entering_within,
            *(f"-s {address} -m conntrack --ctstate DNAT -j RETURN" for address in openings.entry_from),
            "-j DROP",
        ],
    }
    return [f"-A {chain} {rule}" for chain, chain_rules in listed.items() for rule in chain_rules]


def _to_proxy(proxy: tuple[str, int] | None) -> list[str]:
    if proxy is None:
        return []
    address, port = proxy
    return [f"-d {address} -p tcp --dport {port} -j RETURN", f"-d {address} -j DROP"]


def nameservers(*files: Path) -> list[str]:
    """The IPv4 name servers in these files, but for loopback, which no container can ask."""
    found: dict[str, None] = {}
    for line in (line for file in files if file.is_file() for line in file.read_text().splitlines()):
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and _is_remote_ipv4(words[1]):
            found[words[1]] = None
    return list(found)


def _is_remote_ipv4(text: str) -> bool:
    try:
        return not ipaddress.IPv4Address(text).is_loopback
    except ValueError:
        return False


class Tables:
    """One flavour of iptables; the kernel keeps the rules of each apart, and all of them hold."""

    def __init__(self, command: str) -> None:
        self.command = command

    def run(self, *arguments: str, given: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run it, or where something is `given` its `-restore`; the outcome is for the caller to judge."""
        command = self.command if given is None else f"{self.command}-restore"
        line = [_path(command) or command, "-w", str(LOCK_SECONDS), *arguments]
        try:
            return subprocess.run(line, input=given, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FirewallError(f"{command}: {error}") from error

    def has(self, chain: str, *, table: str = "filter") -> bool:
        """Whether the chain exists."""
        return self.run("-t", table, "-n", "-L", chain).returncode == 0

    def leads(self, jump: Jump) -> bool:
        """Whether that jump is in its chain."""
        return self.run("-t", jump.table, "-C", jump.chain, *jump.rule).returncode == 0

    def replace(self, chains: Chains, lines: Sequence[str]) -> str | None:
        """Set the whole content of the chains, that of a table at one stroke. Returns what is wrong with it."""
        text = ""
        for table, names in chains.by_table.items():
            content = [line for line in lines if line.split()[1] in names]
            text += "\n".join([f"*{table}", *(f":{name} - [0:0]" for name in names), *content, "COMMIT", ""])
        done = self.run("--noflush", given=text)
        return None if done.returncode == 0 else _complaint(done)

    def hook(self, jump: Jump) -> None:
        """Put the jump at the top of its chain, unless it is in there."""
        if not self.leads(jump):
            done = self.run("-t", jump.table, "-I", jump.chain, "1", *jump.rule)
            if done.returncode != 0:
                raise FirewallError(_complaint(done))

    def drop(self, chains: Chains) -> None:
        """Remove the chains and whatever leads to them."""
        for jump in chains.jumps:
            while self.leads(jump) and self.run("-t", jump.table, "-D", jump.chain, *jump.rule).returncode == 0:
                pass
        for table, names in chains.by_table.items():
            for name in names:
                if self.has(name, table=table):
                    self.run("-t", table, "-F", name)
                    self.run("-t", table, "-X", name)


def _complaint(done: "subprocess.CompletedProcess[str]") -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("# Warning")]
    return f"{Path(done.args[0]).name}: {' '.join(lines)[:300] or f'status {done.returncode}'}"


def _path(command: str) -> str | None:
    return shutil.which(command) or shutil.which(command, path="/usr/sbin:/sbin")


def engine_tables() -> Tables:
    """The flavour that the engine of this host uses: the one with its chain; else what the host calls iptables.

    Any would do, but two flavours at work on one host are hard to understand for whoever administrates it.
    """
    present = [name for name in ("iptables-nft", "iptables-legacy", "iptables") if _path(name)]
    if not present:
        raise FirewallError("there is no iptables here")
    for name in present:
        if Tables(name).has("DOCKER-USER"):
            return Tables(name)
    return Tables("iptables" if "iptables" in present else present[0])


def _ipv6_tables(tables: Tables) -> Tables | None:
    if not Path("/proc/net/if_inet6").exists():
        return None
    six = Tables(tables.command.replace("iptables", "ip6tables"))
    return six if _path(six.command) else None


def apply(hub: str, openings: Openings) -> str:
    """Set the rules, whatever was set before. Returns how, for people."""
    tables, chains = engine_tables(), Chains(hub)
    servers = nameservers(*RESOLVERS)
    wrong = tables.replace(chains, rules(hub, openings, nameservers=servers))
    if wrong:
        wrong = tables.replace(chains, rules(hub, openings, nameservers=servers, sees_bridged=False))
    if wrong:
        raise FirewallError(wrong)
    for jump in chains.jumps:
        tables.hook(jump)
    return f"{tables.command}{_close_ipv6(tables, chains)}"


def _close_ipv6(tables: Tables, chains: Chains) -> str:
    """User networks have no IPv6, but their bridges have link-local addresses of the host."""
    six = _ipv6_tables(tables)
    if six is None or not six.has("INPUT"):
        return ""
    wrong = six.replace(chains, [f"-A {name} -j DROP" for names in chains.by_table.values() for name in names])
    if wrong:
        raise FirewallError(wrong)
    for jump in chains.jumps:
        six.hook(jump)
    return f", {six.command}"


def missing(hub: str) -> list[str]:
    """What of the rules is not in force; empty when all is."""
    tables, chains = engine_tables(), Chains(hub)
    gone = [name for table, names in chains.by_table.items() for name in names if not tables.has(name, table=table)]
    return gone or [f"{jump.chain} -> {jump.rule[-1]}" for jump in chains.jumps if not tables.leads(jump)]


def remove(hub: str) -> None:
    """Take the deployment's rules away, in every flavour they may have been set in."""
    for name in ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy", "iptables", "ip6tables"):
        if _path(name):
            Tables(name).drop(Chains(hub))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when the rules are not in force, or could not be set."""
    wanted = _parser().parse_args(arguments)
    try:
        if wanted.action == "apply":
            print(apply(wanted.hub, _openings(wanted)))
        elif wanted.action == "remove":
            remove(wanted.hub)
        elif gone := missing(wanted.hub):
            print("not in force:", ", ".join(gone))
            return 1
    except FirewallError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def command(action: str, hub: str, openings: Openings) -> list[str]:
    """The arguments that ask for it; the other direction of the parser."""
    words = [action, "--hub", hub]
    if openings.api_port:
        words += ["--api-port", str(openings.api_port)]
    if openings.proxy:
        words += ["--proxy", f"{openings.proxy[0]}:{openings.proxy[1]}"]
    words += [word for address in openings.entry_from for word in ("--entry-from", address)]
    return words + [word for address in openings.closed for word in ("--closed", address)]


def _openings(wanted: argparse.Namespace) -> Openings:
    return Openings(
        api_port=wanted.api_port,
        entry_from=tuple(wanted.entry_from),
        proxy=wanted.proxy,
        closed=tuple(wanted.closed),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlhub_spawner_worker.firewall", description=__doc__)
    parser.add_argument("action", choices=("apply", "check", "remove"))
    parser.add_argument("--hub", required=True, help="HUB_NAME of the deployment")
    parser.add_argument("--api-port", type=int, help="port of this host that workspaces may reach")
    parser.add_argument("--proxy", type=_address_and_port, help="ADDRESS:PORT, all they may reach of that host")
    parser.add_argument("--entry-from", type=_network, action="append", default=[], help="may reach published ports")
    parser.add_argument("--closed", type=_network, action="append", default=[], help="no workspace reaches it")
    return parser


def _network(text: str) -> str:
    return str(ipaddress.IPv4Network(text, strict=False))


def _address_and_port(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    return str(ipaddress.IPv4Address(address)), int(port)


if __name__ == "__main__":
    sys.exit(main())
