"""`mlhub doctor`: what this machine lacks, each with the command that mends it."""

import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from mlhub_standalone import binaries, https, leftovers
from mlhub_standalone.backends import default_image
from mlhub_standalone.console import plural, say
from mlhub_standalone.data_dir import DataDir
from mlhub_standalone.engine import Engine, EngineAway, url_of
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.instance import Instance, plan
from mlhub_standalone.lock import InstanceLock
from mlhub_standalone.options import Asked
from mlhub_standalone.ports import is_free
from mlhub_standalone.settings import StandaloneSettings

_LEAST_DISK, _ENOUGH_DISK = 200 * 1024**2, 2 * 1024**3
_ENOUGH_FILES = 4096
_ENOUGH_MEMORY = 2 * 1024**3
_SOON = timedelta(days=14)
"""Before a certificate ends, somebody should know."""

FIREWALL_IMAGE = "mlhub-spawner-worker"
"""Runs for a moment in the host's network, to set the rules between workspaces and this machine."""


class Grade(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    grade: Grade
    subject: str
    text: str
    cure: str = ""
    """What to do about it."""


def doctor(data: DataDir, asked: Asked, environment: Mapping[str, str]) -> bool:
    """Show every finding; True if ML Hub can run."""
    findings = list(examine(data, asked, environment))
    for finding in findings:
        say(f"  {finding.grade:<4}  {finding.subject:<12} {finding.text}")
        if finding.cure:
            say(f"        {'':<12} -> {finding.cure}")
    failures = sum(finding.grade is Grade.FAIL for finding in findings)
    say(f"\n{plural(failures, 'thing')} to mend." if failures else "\nML Hub can run here.")
    return not failures


def examine(data: DataDir, asked: Asked, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Everything worth looking at, one after the other."""
    yield _system()
    yield _python()
    yield _binary("nats-server", lambda: binaries.nats_server(StandaloneSettings().nats_server))
    yield _binary("haproxy", lambda: binaries.haproxy(environment.get("MLHUB_PROXY_HAPROXY")))
    yield _ssh_client()
    yield _data_dir(data)
    yield _disk(data)
    yield _memory()
    yield _open_files()
    yield _limits()
    yield from _engine(data, environment)
    yield from _instance(data, asked, environment)


def _system() -> Finding:
    return Finding(Grade.OK, "system", f"{platform.system()} {platform.release()} ({platform.machine()})")


def _python() -> Finding:
    return Finding(Grade.OK, "python", f"{platform.python_version()} ({sys.executable})")


def _binary(name: str, find: Callable[[], binaries.Binary]) -> Finding:
    try:
        return Finding(Grade.OK, name, str(find()))
    except LauncherError as error:
        text, _, cure = str(error).partition("\n")
        return Finding(Grade.FAIL, name, text, cure.strip())


def _ssh_client() -> Finding:
    if path := shutil.which("ssh"):
        return Finding(Grade.OK, "ssh", path)
    return Finding(Grade.WARN, "ssh", "no OpenSSH client on PATH", "apt-get install openssh-client")


def _data_dir(data: DataDir) -> Finding:
    nearest = next(folder for folder in (data.root, *data.root.parents) if folder.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Finding(Grade.FAIL, "data", f"{nearest} can't be written to", "mlhub up --data-dir ANOTHER")
    if nearest == data.root and data.root.stat().st_mode & 0o077:
        return Finding(Grade.WARN, "data", f"others may look into {data.root}", f"chmod 700 {data.root}")
    return Finding(Grade.OK, "data", str(data.root))


def _disk(data: DataDir) -> Finding:
    nearest = next(folder for folder in (data.root, *data.root.parents) if folder.exists())
    free = shutil.disk_usage(nearest).free
    text = f"{free / 1024**3:.1f} GiB free"
    if free < _LEAST_DISK:
        return Finding(Grade.FAIL, "disk", text, f"make room below {nearest}")
    return Finding(Grade.OK if free >= _ENOUGH_DISK else Grade.WARN, "disk", text)


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = f"{total / 1024**3:.1f} GiB, {plural(os.cpu_count() or 1, 'core')}"
    return Finding(Grade.OK if total >= _ENOUGH_MEMORY else Grade.WARN, "memory", text)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= _ENOUGH_FILES or soft == resource.RLIM_INFINITY:
        return Finding(Grade.OK, "open files", f"{soft} allowed")
    return Finding(Grade.WARN, "open files", f"{soft} allowed", f"ulimit -n {min(hard, 65536)}")


def _limits() -> Finding:
    group = _own_cgroup()
    if group is not None and os.access(group / "cgroup.subtree_control", os.W_OK):
        return Finding(Grade.OK, "limits", f"CPU and memory of workspaces can be limited ({group})")
    return Finding(
        Grade.WARN,
        "limits",
        "no cgroup to write to: of local processes, the memory of each is limited, CPU not at all",
        f"systemd-run --user --scope -p Delegate=yes {Path(sys.executable).parent / 'mlhub'} up",
    )


def _own_cgroup() -> Path | None:
    try:
        line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    group = Path("/sys/fs/cgroup") / line.removeprefix("0::").strip().lstrip("/")
    return group if group.is_dir() else None


def _engine(data: DataDir, environment: Mapping[str, str]) -> Iterator[Finding]:
    engine = Engine(url_of(environment))
    try:
        info = engine.info()
        image = default_image(data.profiles)
        has_image = image is not None and engine.has_image(image)
    except EngineAway as error:
        yield Finding(Grade.OK, "docker", f"{error}; workspaces run as processes")
        return
    version, cgroups = info.get("ServerVersion", "?"), info.get("CgroupVersion", "1")
    yield Finding(Grade.OK, "docker", f"{version} (cgroup v{cgroups}, {info.get('Driver', '?')}) at {engine.url}")
    if has_image:
        yield Finding(Grade.OK, "image", f"{image} is there: workspaces run as containers")
    else:
        yield Finding(Grade.WARN, "image", f"there is no {image}: workspaces run as processes", "make images")
    yield from _rules(engine, environment.get("MLHUB_SPAWNER_WORKER_FIREWALL_IMAGE") or FIREWALL_IMAGE)


def _rules(engine: Engine, image: str) -> Iterator[Finding]:
    """What keeps workspaces from the services of this machine."""
    own = shutil.which("iptables") if os.geteuid() == 0 else None
    if own is None and not engine.has_image(image):
        yield Finding(Grade.WARN, "firewall", f"there is no image {image} to set its rules", "make images")
    else:
        yield Finding(Grade.OK, "firewall", f"rules are set by {own or f'a container of {image}'}")


def _instance(data: DataDir, asked: Asked, environment: Mapping[str, str]) -> Iterator[Finding]:
    if (holder := InstanceLock(data).holder()) is not None:
        yield Finding(
            Grade.OK, "instance", f"runs (launcher: pid {holder.pid}); see: mlhub status --data-dir {data.root}"
        )
        return
    if left := leftovers.parts(data):
        yield Finding(
            Grade.WARN, "instance", f"{plural(len(left), 'process')} of an earlier run are left", "mlhub down"
        )
        return
    try:
        instance = plan(data, asked, environment)
    except LauncherError as error:
        yield Finding(Grade.FAIL, "instance", str(error))
        return
    yield _https(instance, environment)
    yield from _ports(instance)


def _https(instance: Instance, environment: Mapping[str, str]) -> Finding:
    if not instance.tls:
        if instance.is_open and not instance.site.startswith("https://"):
            return Finding(Grade.WARN, "https", "off: passwords travel in the clear", "mlhub up --tls")
        return Finding(Grade.OK, "https", "off")
    given = environment.get("MLHUB_PROXY_CERT_DIR")
    if given and https.with_certificate(Path(given)) is None:
        return Finding(Grade.WARN, "https", f"no certificate in {given}", "put cert.crt and cert.key there")
    shown = https.read(instance.data.certificate)
    if shown is None:
        return Finding(Grade.OK, "https", "on; what certificate it shows is seen at the first start")
    text = f"on; the certificate for {', '.join(shown.names)} ends on {shown.until:%Y-%m-%d}"
    return Finding(Grade.WARN if shown.until - datetime.now(UTC) < _SOON else Grade.OK, "https", text)


def _ports(instance: Instance) -> Iterator[Finding]:
    ports = [("web port", instance.port, "--port")]
    if instance.ssh_port:
        ports.append(("ssh port", instance.ssh_port, "--ssh-port"))
    for subject, port, option in ports:
        if is_free(port, instance.host):
            yield Finding(Grade.OK, subject, f"{port} is free")
        else:
            yield Finding(
                Grade.FAIL, subject, f"{port} can't be used", f"mlhub up {option} ANOTHER   (ss -ltnp shows who has it)"
            )
    for warning in instance.warnings:
        yield Finding(Grade.WARN, "inner port", warning)
