"""The set-up script by itself: names of any kind, and a hub that is somebody else's."""

import asyncio
import base64
import hashlib
import os
import secrets
import shutil
import ssl
import subprocess
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mlhub_hub.pages.setup_script import Address, address_of, download, script
from mlhub_hub.pages.ssh import instructions
from tests.hub.pages.test_ssh import HOST_KEY
from tests.support.makers import workspace

EVIL = [
    "$(touch owned)",
    "`touch owned`",
    "';touch owned;'",
    '";touch owned;"',
    "a\\'b",
    "o'neill",
    "two words",
    "-x",
    "josé",
    "EOF",
    "#x",
]


STUB = """#!/bin/sh
while [ $# -gt 0 ]; do
  [ "$1" = -o ] && echo taken > "$2"
  shift
done
printf 201
"""

HUB = Address("https://hub.example.org", None)


def pin_of(key: ec.EllipticCurvePrivateKey) -> str:
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256//{base64.b64encode(hashlib.sha256(der).digest()).decode()}"


@asynccontextmanager
async def tls_server(
    folder: Path, key: ec.EllipticCurvePrivateKey, answer: str
) -> AsyncIterator[tuple[int, list[str]]]:
    """Answers every request alike; yields its port and the requests that came."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
    certificate = builder.not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem")
    requests: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            body = answer.encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], requests
    finally:
        server.close()


async def run(command: str, folder: Path) -> int:
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", command, cwd=folder, env={"HOME": str(folder), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    )
    return await asyncio.wait_for(process.wait(), 60)


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("user", EVIL)
def test_no_name_becomes_a_command(tmp_path: Path, shell: str, user: str) -> None:
    target = workspace(user, "gpu1")
    ssh = instructions(target, host="hub.example.org", port=2222, host_key=HOST_KEY)
    if ssh.config is None:
        assert "$" in user
        return
    stub = tmp_path / "bin"
    stub.mkdir()
    (stub / "curl").write_text(STUB)
    (stub / "curl").chmod(0o755)
    text = script(ssh, address=HUB, url="https://hub/x", key_name="key")
    (tmp_path / "script").write_text(text)
    home = tmp_path / "home of $(touch owned)"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": f"{stub}:/usr/bin:/bin"}
    subprocess.run([shell, tmp_path / "script"], check=True, cwd=tmp_path, env=environment)
    assert not list(tmp_path.rglob("owned"))
    shown = subprocess.run(
        ["ssh", "-G", "-F", home / ".ssh" / "mlhub" / f"{ssh.alias}.conf", ssh.alias],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert f"user {target.address}" in shown.splitlines()


def test_half_a_script_does_nothing(tmp_path: Path) -> None:
    ssh = instructions(workspace(), host="hub.example.org", port=2222, host_key=None)
    text = script(ssh, address=HUB, url="https://hub/x", key_name="k")
    for cut in range(100, len(text) - 6, 97):
        subprocess.run(["sh", "-c", text[:cut]], check=False, capture_output=True, env={"HOME": str(tmp_path)})
    assert not list(tmp_path.iterdir())


def test_shellcheck_finds_nothing() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck here")
    ssh = instructions(workspace(), host="hub.example.org", port=2222, host_key=HOST_KEY)
    text = script(ssh, address=HUB, url="https://hub/x", key_name="k")
    found = subprocess.run(["shellcheck", "-s", "sh", "-"], input=text, check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.asyncio
async def test_a_certificate_that_nobody_signed_is_known_by_its_key_and_no_other_hub_is_asked(tmp_path: Path) -> None:
    ours, theirs = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    async with tls_server(tmp_path, ours, "touch ran\n") as (port, requests):
        origin = f"localhost:{port}"
        both = f"{pin_of(theirs)};{pin_of(ours)}"
        for pin, status in [(pin_of(theirs), 90), (None, 60), (pin_of(ours), 0), (both, 0)]:
            address = address_of("https", origin, pin=pin)
            assert address is not None
            asked = len(requests)
            assert await run(download(address, f"{address.url}/hub/ssh-setup/secret/script"), tmp_path) == status
            assert len(requests) - asked == (status == 0), "who is not the hub is not told the token"
            assert (tmp_path / "ran").exists() == (status == 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("shell", ["sh", "bash"])
async def test_another_account_of_the_computer_never_sees_the_token(tmp_path: Path, shell: str) -> None:
    key, token = ec.generate_private_key(ec.SECP256R1()), secrets.token_urlsafe()
    home, programs, seen = (tmp_path / name for name in ("home", "bin", "seen"))
    home.mkdir()
    programs.mkdir()
    # What anybody sees whenever curl runs: every command line, and the files that are there by then.
    look = f"cat /proc/[0-9]*/cmdline {home}/* >> {seen} 2>&-"
    (programs / "curl").write_text(f'#!/bin/sh\n{look}\nexec {shutil.which("curl")} "$@"\n')
    (programs / "curl").chmod(0o755)
    ssh = instructions(workspace(), host="localhost", port=2222, host_key=HOST_KEY)
    async with tls_server(tmp_path, key, "") as (port, registered):
        hub = Address(f"https://localhost:{port}", pin_of(key))
        text = script(ssh, address=hub, url=f"{hub.url}/{token}", key_name="key")
        async with tls_server(tmp_path, key, text) as (port, downloaded):
            line = download(hub, f"https://localhost:{port}/{token}/script")
            process = await asyncio.create_subprocess_exec(
                shell, cwd=home, env={"HOME": str(home), "PATH": f"{programs}:/usr/bin:/bin"}, stdin=PIPE
            )
            # Typed in, as people do.
            await asyncio.wait_for(process.communicate(f"umask 022\n{line}\n".encode()), 60)
    assert process.returncode == 0
    assert [token in requests[0] for requests in (downloaded, registered)] == [True, True]
    assert b"pinnedpubkey" in seen.read_bytes()
    assert token.encode() not in seen.read_bytes()
    assert os.listdir(home) == [".ssh"]
    folder = home / ".ssh"
    assert not [name for name in os.listdir(folder) if (folder / name).stat().st_mode & 0o077]


@pytest.mark.asyncio
async def test_the_script_registers_with_the_hub_that_it_came_from_alone(tmp_path: Path) -> None:
    ours, theirs = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ssh = instructions(workspace(), host="localhost", port=2222, host_key=HOST_KEY)
    async with tls_server(tmp_path, ours, "fine") as (port, requests):
        for key, status in [(theirs, 1), (ours, 0)]:
            address = Address(f"https://localhost:{port}", pin_of(key))
            url = f"{address.url}/hub/ssh-setup/secret"
            (tmp_path / "script").write_text(script(ssh, address=address, url=url, key_name="key"))
            assert await run("sh script", tmp_path) == status
            assert len(requests) == (status == 0)
            assert (tmp_path / ".ssh" / "config").exists() == (status == 0)
    assert requests[0].startswith("POST /hub/ssh-setup/secret HTTP/1.1")


@pytest.mark.parametrize(
    "host",
    ["", "a b", "x'y", "user@host", "h/p", "h?q", "h#f", "$(id)", "h:port", "h:99999", "[::1", "-h", "h\n", "h:80:80"],
)
def test_a_host_that_no_browser_names_is_none(host: str) -> None:
    assert address_of("https", host, pin=None) is None


@pytest.mark.parametrize(
    ("scheme", "host", "is_secure"),
    [
        ("https", "hub.example.org", True),
        ("http", "hub.example.org", False),
        ("http", "10.0.0.7:8080", False),
        ("http", "127.0.0.1:8080", True),
        ("http", "localhost", True),
        ("http", "[::1]:8080", True),
        ("http", "localhost.example.org", False),
    ],
)
def test_a_token_goes_over_no_open_line(scheme: str, host: str, is_secure: bool) -> None:
    address = address_of(scheme, host, pin=None)
    assert address is not None
    assert address.is_secure is is_secure
