"""The script that sets somebody's computer up for SSH into a workspace."""

import ipaddress
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlhub_hub.pages.ssh import SshInstructions

_BODY = Path(__file__).with_name("ssh_setup.sh")

_INCLUDE = "Include ~/.ssh/mlhub/*.conf"

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PINS = re.compile(r"sha256//[A-Za-z0-9+/]{43}=(;sha256//[A-Za-z0-9+/]{43}=)*")


@dataclass(frozen=True)
class Address:
    """How somebody's browser, and so his computer, reaches the hub."""

    url: str
    """Scheme, host and port."""
    pin: str | None
    """`sha256//...`, or several with `;` between, of certificates that no authority has signed. None: authorities
    decide."""

    @property
    def host(self) -> str:
        """Without its port."""
        return urlsplit(self.url).hostname or ""

    @property
    def is_secure(self) -> bool:
        """Nobody on the way can read the token or change the script."""
        return self.is_encrypted or is_loopback(self.host)

    @property
    def is_encrypted(self) -> bool:
        """TLS."""
        return self.url.startswith("https://")

    @property
    def curl(self) -> list[str]:
        """What makes curl talk to this hub and no other."""
        if not self.is_encrypted:
            return ["--proto", "=http"]
        pinned = ["--insecure", "--pinnedpubkey", self.pin] if self.pin else []
        return ["--proto", "=https", *pinned]


def address_of(scheme: str, host: str, *, pin: str | None) -> Address | None:
    """Where a request came to, by its Host header; None for one that no browser sends."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname or "", parts.port
    except ValueError:
        return None
    if scheme not in {"http", "https"} or parts.netloc != host or "@" in host or not is_host(name):
        return None
    return Address(f"{scheme}://{host}", pin if pin and _PINS.fullmatch(pin) else None)


def is_host(text: str) -> bool:
    """A host's name or an address of it, and nothing that a shell or OpenSSH would read otherwise."""
    return _HOST.fullmatch(text) is not None or _ip(text) is not None


def is_loopback(host: str) -> bool:
    """Stays on the machine."""
    ip = _ip(host)
    return host == "localhost" or (ip is not None and ip.is_loopback)


def download(address: Address, url: str) -> str:
    """The one line that fetches the script, whole, and runs it.

    Other accounts of that computer see neither: `echo` is no process of its own, and nothing is written to a file. The
    blank at the front keeps the line out of the history of many shells.
    """
    options = " ".join(f'"{word}"' if ";" in word else word for word in address.curl)
    told, fetch = f'url="{url}"', f's=$(curl -fsS {options} -K -) && eval "$s"'
    return f" echo {shlex.quote(told)} | sh -c {shlex.quote(fetch)}"


def script(ssh: SshInstructions, *, address: Address, url: str, key_name: str) -> str:
    """The script, for `sh` of any system. `url`: where it registers the key."""
    config = "\n".join([ssh.config or "", f"    IdentityFile ~/.ssh/{key_name}", "    IdentitiesOnly yes"])
    values = {
        "url": url,
        "key_name": key_name,
        "alias_name": ssh.alias,
        "alias_config": config,
        "include": _INCLUDE,
        "known_host": ssh.known_hosts or "",
    }
    curl = shlex.join(["curl", "-sS", "--max-time", "30", *address.curl])
    head = ["#!/bin/sh", "# Sets this computer up for SSH into a workspace of ML Hub.", "set -eu"]
    head += [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    head += ["fetch() {", f'  {curl} "$@"', "}"]
    return "\n".join([*head, _BODY.read_text()])


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else found
